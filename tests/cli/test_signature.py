# SPDX-License-Identifier: Apache-2.0
"""``lancet-onnx signature``: made and checked without a network, with keys from files."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from support import ROOT, Warm, one_error, untouched

GOLDEN = ROOT / "fixtures" / "patches" / "v1" / "flip"
SCHEMA = json.loads((ROOT / "docs" / "report.schema.json").read_text())
PEM = serialization.Encoding.PEM


def write_keys(folder: Path, name: str, password: bytes | None = None) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    hidden = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, hidden)
    public = key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pem").write_bytes(private)
    (folder / f"{name}.pub.pem").write_bytes(public)


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """A folder with keys beside a folder with a repaired model, its patch and a report."""
    (tmp_path / "fixed").mkdir()
    shutil.copy(GOLDEN / "result" / "model.onnx", tmp_path / "fixed")
    shutil.copy(GOLDEN / "patch.lancet.safetensors", tmp_path / "fixed" / "p.lancet.safetensors")
    (tmp_path / "fixed" / "report.json").write_text("{}")
    write_keys(tmp_path, "mine")
    write_keys(tmp_path, "other")
    return tmp_path


def make(box: Path, warm: Warm, *more: str) -> None:
    result = warm("signature", "make", "fixed", "--key", "mine.pem", "-q", *more, cwd=box)
    assert (result.code, result.stdout, result.stderr) == (0, "done\n", ""), result


def test_what_was_signed_passes(box: Path, warm: Warm):
    make(box, warm)
    result = warm(
        "signature", "check", "fixed", "--key", "mine.pub.pem", "-f", "json", cwd=box
    )  # fmt: skip
    assert (result.code, result.stderr) == (0, ""), result
    assert result.json["verdict"] == "pass"
    assert result.json["files"] == ["model.onnx", "p.lancet.safetensors", "report.json"]
    jsonschema.validate(result.json, SCHEMA)


@pytest.mark.parametrize("name", ["model.onnx", "p.lancet.safetensors", "report.json"])
def test_a_changed_file_fails(box: Path, warm: Warm, name: str):
    make(box, warm)
    path = box / "fixed" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    result = warm("signature", "check", "fixed", "--key", "mine.pub.pem", cwd=box)
    assert (result.code, result.stdout) == (1, "fail\n"), result
    assert "not those that were signed" in result.stderr


def test_a_file_too_many_or_too_few_fails(box: Path, warm: Warm):
    make(box, warm)
    (box / "fixed" / "more.onnx").write_bytes(b"more")
    line = ("signature", "check", "fixed", "--key", "mine.pub.pem", "-q")
    assert warm(*line, cwd=box).code == 1
    (box / "fixed" / "more.onnx").unlink()
    assert warm(*line, cwd=box).code == 0
    (box / "fixed" / "report.json").unlink()
    assert warm(*line, cwd=box).code == 1


def test_another_key_fails(box: Path, warm: Warm):
    make(box, warm)
    result = warm("signature", "check", "fixed", "--key", "other.pub.pem", "-q", cwd=box)
    assert (result.code, result.stdout) == (1, "fail\n"), result


def test_the_signature_may_lie_elsewhere(box: Path, warm: Warm):
    make(box, warm, "-o", "s.sig")
    assert (box / "s.sig").is_file()
    line = ("signature", "check", "fixed", "--key", "mine.pub.pem", "--signature", "s.sig")
    assert warm(*line, cwd=box).code == 0


def test_a_password_comes_from_the_environment(box: Path, warm: Warm):
    write_keys(box, "locked", b"secret")
    line = ("signature", "make", "fixed", "--key", "locked.pem")
    with untouched(box):
        one_error(warm(*line, cwd=box), 3, "locked.pem", "LANCET_KEY_PASSWORD")
        wrong = warm(*line, cwd=box, env={"LANCET_KEY_PASSWORD": "wrong"})
        one_error(wrong, 3, "locked.pem")
    assert warm(*line, cwd=box, env={"LANCET_KEY_PASSWORD": "secret"}).code == 0


def test_an_older_signature_is_replaced_only_when_asked(box: Path, warm: Warm):
    make(box, warm)
    with untouched(box):
        line = ("signature", "make", "fixed", "--key", "mine.pem")
        one_error(warm(*line, cwd=box), 3, "exists already", "--force")
    make(box, warm, "--force")


def test_bad_input(box: Path, warm: Warm):
    rsa_key = rsa.generate_private_key(65537, 2048)
    (box / "rsa.pem").write_bytes(
        rsa_key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (box / "empty").mkdir()
    (box / "linked").mkdir()
    (box / "linked" / "m.onnx").symlink_to(box / "fixed" / "model.onnx")
    (box / "nonsense.sig").write_text("{}")
    make_, check = ("signature", "make"), ("signature", "check")
    with untouched(box):
        for line, words in (
            ((*make_, "gone", "--key", "mine.pem"), "gone: not a folder"),
            ((*make_, "empty", "--key", "mine.pem"), "empty: holds no file"),
            ((*make_, "fixed", "--key", "gone.pem"), "gone.pem: no such file"),
            ((*make_, "fixed", "--key", "fixed/model.onnx"), "private key of an elliptic curve"),
            ((*make_, "fixed", "--key", "rsa.pem"), "private key of an elliptic curve"),
            ((*make_, "linked", "--key", "mine.pem"), "linked"),
            ((*check, "fixed", "--key", "mine.pub.pem"), "no signature there"),
            ((*check, "fixed", "--key", "gone.pem"), "no signature there"),
        ):
            one_error(warm(*line, cwd=box), 3, words)
        nonsense = (*check, "fixed", "--key", "mine.pub.pem", "--signature", "nonsense.sig", "-q")
        assert warm(*nonsense, cwd=box).code == 1


def test_without_the_extra_it_says_what_to_install(box: Path, monkeypatch: pytest.MonkeyPatch):
    from lancet_onnx import LancetError, sign

    real = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "OpenSSL" else real(name)
    )
    with pytest.raises(LancetError, match=r"OpenSSL.*pip install 'lancet-onnx\[sign\]'"):
        sign(box / "fixed", box / "mine.pem")
