# SPDX-License-Identifier: Apache-2.0
"""Signatures over a model folder, patch and report included, with OpenSSF model-signing.

Keys are files (elliptic curves, PEM); nothing is asked of or told to any server.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from types import ModuleType

from lancet_onnx.errors import DataError, LancetError
from lancet_onnx.model.digests import file_digest
from lancet_onnx.model.files import check_output, save
from lancet_onnx.report.report import Report

NAME = "model.sig"
PASSWORD = "LANCET_KEY_PASSWORD"  # noqa: S105 - the name of a variable
"""Environment variable with the private key's password, if it has one."""


def sign(folder: Path, key: Path, signature: Path | None = None, *, force: bool = False) -> Report:
    """Sign every file in `folder` with a private key; the signature goes to ``model.sig`` in it.

    Raises:
        LancetError: model-signing is not installed, or folder, key or output cannot be used.
    """
    signature = signature or folder / NAME
    files = _files(folder, signature)
    check_output(signature, [key, *files], force=force)
    modules = _modules()
    with tempfile.TemporaryDirectory() as temporary:
        draft = Path(temporary) / NAME
        # model-signing asks for text and hands it to something that takes bytes.
        password = os.environ[PASSWORD].encode() if PASSWORD in os.environ else None
        config = modules["signing"].Config()
        try:
            config.use_elliptic_key_signer(private_key=_key(key), password=password)
            config.set_hashing_config(_hashing(modules, folder, signature)).sign(folder, draft)
        except (ValueError, TypeError, AttributeError, OSError) as error:
            # model-signing meets a key of another kind, RSA say, with an AttributeError.
            raise DataError(
                f"{key}: the folder {folder} could not be signed with it ({error}); expected a "
                f"private key of an elliptic curve as PEM, its password in {PASSWORD}"
            ) from error
        save(draft.read_bytes(), signature)
    return Report("signature make", "done", (), _body(folder, signature, files))


def check_signature(folder: Path, key: Path, signature: Path | None = None) -> Report:
    """Compare every file in `folder` with its signature, by a public key: ``pass`` or ``fail``.

    Raises:
        LancetError: model-signing is not installed, or folder, key or signature cannot be used.
    """
    signature = signature or folder / NAME
    files = _files(folder, signature)
    if not signature.is_file():
        raise DataError(f"{signature}: no signature there; make one with `lancet-onnx signature`")
    modules = _modules()
    try:
        config = modules["verifying"].Config().use_elliptic_key_verifier(public_key=_key(key))
        hashing = _hashing(modules, folder, signature)
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise DataError(f"{key}: not a public key of an elliptic curve as PEM ({error})") from error
    try:
        config.set_hashing_config(hashing).verify(folder, signature)
    except (ValueError, TypeError, KeyError, OSError) as error:
        reason = f"the files or the key are not those that were signed: {error}"
        return Report("signature check", "fail", (reason,), _body(folder, signature, files))
    return Report("signature check", "pass", (), _body(folder, signature, files))


def _files(folder: Path, signature: Path) -> list[Path]:
    """Return what is signed: every file but the signature itself."""
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder; give the folder that holds model, patch, report")
    found = sorted(
        p for p in folder.rglob("*") if p.is_file() and p.absolute() != signature.absolute()
    )
    if not found:
        raise DataError(f"{folder}: holds no file, so there is nothing to sign")
    return found


def _key(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a key as PEM")
    return path


def _hashing(modules: dict[str, ModuleType], folder: Path, signature: Path) -> object:
    inside = signature.absolute().is_relative_to(folder.absolute())
    paths = [signature.absolute().relative_to(folder.absolute())] if inside else []
    return modules["hashing"].Config().set_ignored_paths(paths=paths, ignore_git_paths=False)


def _modules() -> dict[str, ModuleType]:
    # model-signing needs pyOpenSSL but does not say so.
    missing = [n for n in ("model_signing", "OpenSSL") if importlib.util.find_spec(n) is None]
    if missing:
        raise LancetError(
            f"signing needs {' and '.join(missing)}, not installed here: "
            "pip install 'lancet-onnx[sign]'"
        )
    from model_signing import hashing, signing, verifying

    return {"hashing": hashing, "signing": signing, "verifying": verifying}


def _body(folder: Path, signature: Path, files: list[Path]) -> dict[str, object]:
    digest = str(file_digest(signature))
    return {
        "folder": str(folder),
        "files": [str(path.relative_to(folder)) for path in files],
        "signature": {"path": str(signature), "sha256": digest},
    }
