# SPDX-License-Identifier: Apache-2.0
"""The timm architectures of the corpus: the smallest variant of each family, smallest first."""

_TEXT = """
    test_convnext test_efficientnet test_efficientnet_gn test_efficientnet_ln
    test_efficientnet_evos test_vit test_nfnet test_mambaout test_byobnet starnet_s050
    test_coatnet test_vit_relpos dla46x_c test_maxvit mobilevit_xxs edgenext_xx_small
    mobilevitv2_050 mobilenetv3_small_050 lcnet_035 mobilenetv2_035 ese_vovnet19b_slim_dw
    mobilenetv4_conv_small_035 mnasnet_small tf_mobilenetv3_small_075 tinynet_e semnasnet_050
    convnext_zepto_rms convnext_zepto_rms_ols repghostnet_050 efficientvit_m0 ghostnet_050
    regnetx_002 cspnext_tiny iformer_t xcit_nano_12_p8_224 regnety_002 cs3darknet_focus_s
    cs3darknet_s ghostnetv3_050 efficientvit_b0 swiftformer_xs efficientformerv2_s0 pvt_v2_b0
    convnext_atto_ols convnextv2_atto fasternet_t0 fastvit_t8 mobilenet_edgetpu_100 lcnetv2_small
    mixnet_s tf_mixnet_s inception_next_atto spnasnet_100 efficientnet_lite0 tf_efficientnet_lite0
    rexnet_100 mobileone_s1 pit_ti_224 rexnetr_100 pit_ti_distilled_224 hardcorenas_b
    efficientnet_blur_b0 tf_efficientnet_b0 efficientnet_es mobilenetv3_rw repvit_m1 coat_tiny
    eva02_tiny_patch14_224 fbnetc_100 convit_tiny deit_tiny_patch16_224 coat_lite_tiny
    gmlp_ti16_224 deit_tiny_distilled_patch16_224 hgnetv2_b0 shvit_s1 vit_tiny_r_s16_p8_224
    cpubone_nano ese_vovnet19b_dw efficientvim_m1 crossvit_tiny_240 regnetz_005
    tf_efficientnetv2_b0 mobilenetv4_hybrid_medium_075 maxvit_pico_rw_256 maxvit_rmlp_pico_rw_256
    efficientvim_m1_dist levit_128s levit_conv_128s edgenext_small_rw densenet121 densenetblur121d
    halonet_h1 gernet_s vit_xsmall_patch16_clip_224 fbnetv3_b nf_regnet_b0 crossvit_9_dagger_240
    repvgg_a0 dpn48b regnetz_b16 mobilenetv4_conv_aa_medium regnetz_b16_evos resnext26ts
    eca_resnext26ts visformer_tiny gcresnext26ts eca_botnext26ts_256 resnest14d bat_resnext26ts
    eca_halonext26ts lambda_resnet26t csatv2 fastvit_sa12 haloregnetz_b resnetv2_18 resnetblur18
    legacy_seresnet18 seresnet18 poolformerv2_s12 poolformer_s12 cait_xxs24_224 skresnet18
    gcvit_xxtiny tiny_vit_5m_224 efficientformer_l1 cpubone_b1_dwnorm botnet26t_256 gmixer_12_224
    hrnet_w18_small efficientnet_x_b3 efficientnet_cc_b0_4e vit_wee_patch16_reg1_gap_256
    vit_dwee_patch16_reg1_gap_256 efficientnetv2_rw_t sebotnet33ts_256 lowformer_b0 darknet17
    coatnext_nano_rw_224 hgnet_tiny coatnet_rmlp_nano_rw_224 vit_dpwee_patch16_reg1_gap_256
    resmlp_12_224 dla34 nf_resnet26 ecaresnet26t maxxvit_rmlp_nano_rw_256 dla60_res2next nest_tiny
    nf_seresnet26 resnet32ts mixer_s16_224 cspresnext50 dla60_res2net sedarknet21 convmixer_768_32
    efficientnetv2_s vit_small_patch16_dinov3 cs3sedarknet_xdw cspresnet50 resnetaa34d
    cs3sedarknet_l vit_srelpos_small_patch16_224 vit_relpos_small_patch16_rpn_224
    vit_small_patch16_rope_224 vit_small_patch16_rope_mixed_224 vit_small_patch14_dinov2
    vit_small_patch16_rope_ape_224 flexivit_small vitamin_small_224 pvt_v2_b2_li
    lamhalobotnet50ts_256 vovnet39a halo2botnet50ts_256 legacy_xception maxxvitv2_nano_rw_256
    tnt_s_patch16_224 inception_v3 rdnet_tiny twins_svt_small twins_pcpvt_small eca_nfnet_l0
    mvitv2_tiny convmixer_1024_20_ks9_p14 ese_vovnet39b res2next50 res2net50_14w_8s
    resnetv2_50x1_bit resnetv2_50d_gn resnetv2_50d_evos caformer_s18 volo_d1_224 resnet50_mlp
    convformer_s18 sam2_hiera_tiny xception41p cspdarknet53 sequencer2d_s hiera_tiny_224
    swin_tiny_patch4_window7_224 swin_s3_tiny_224 swinv2_cr_tiny_224 swinv2_tiny_window16_256
    davit_tiny focalnet_tiny_srf convnext_tiny_hnf vit_small_plus_patch16_dinov3 selecsls42
    tresnet_m nextvit_small hiera_small_abswin_256 hieradet_small mvitv2_small_cls resnetrs50
    vit_small_r26_s32_224 resnet50_clip vit_medium_patch16_rope_reg1_gap_256
    vit_relpos_medium_patch16_cls_224 inception_v4 cait_s24_224 inception_resnet_v2
    mobilenetv5_base pnasnet5large vit_base_patch16_clip_quickgelu_224 eva02_base_patch16_clip_224
    vit_base_patch14_reg1_tipsv2 vit_base_patch16_radio_v3 samvit_base_patch16_224
    vit_base_patch16_xp_224 beit_base_patch16_224 beitv2_base_patch16_224 vit_base_patch16_rpn_224
    naflexvit_base_patch16_gap naflexvit_base_patch16_par_gap beit3_base_patch16_224 qwen3_vit_88m
    nasnetalarge vit_base_patch16_siglip_224 vit_pe_core_base_patch16_224
    naflexvit_base_patch16_map qwen3_vit_88m_merge gemma4_vit_167m
"""

# One of each of timm's modules; these are built before the others.
_FIRST = """
    test_convnext test_efficientnet test_vit test_nfnet test_mambaout test_byobnet starnet_s050
    test_coatnet test_vit_relpos dla46x_c mobilevit_xxs edgenext_xx_small mobilenetv3_small_050
    ese_vovnet19b_slim_dw repghostnet_050 efficientvit_m0 ghostnet_050 regnetx_002 cspnext_tiny
    iformer_t xcit_nano_12_p8_224 cs3darknet_focus_s efficientvit_b0 swiftformer_xs
    efficientformerv2_s0 pvt_v2_b0 fasternet_t0 fastvit_t8 lcnetv2_small inception_next_atto
    rexnet_100 pit_ti_224 hardcorenas_b repvit_m1 coat_tiny eva02_tiny_patch14_224 convit_tiny
    deit_tiny_patch16_224 gmlp_ti16_224 hgnetv2_b0 shvit_s1 vit_tiny_r_s16_p8_224 cpubone_nano
    efficientvim_m1 crossvit_tiny_240 levit_128s densenet121 halonet_h1 dpn48b visformer_tiny
    resnest14d csatv2 resnetv2_18 resnetblur18 legacy_seresnet18 poolformerv2_s12 cait_xxs24_224
    skresnet18 gcvit_xxtiny tiny_vit_5m_224 efficientformer_l1 hrnet_w18_small lowformer_b0
    nest_tiny convmixer_768_32 vitamin_small_224 legacy_xception tnt_s_patch16_224 inception_v3
    rdnet_tiny twins_svt_small mvitv2_tiny res2next50 volo_d1_224 sam2_hiera_tiny xception41p
    sequencer2d_s hiera_tiny_224 swin_tiny_patch4_window7_224 swinv2_cr_tiny_224
    swinv2_tiny_window16_256 davit_tiny focalnet_tiny_srf selecsls42 tresnet_m nextvit_small
    inception_v4 inception_resnet_v2 mobilenetv5_base pnasnet5large samvit_base_patch16_224
    beit_base_patch16_224 naflexvit_base_patch16_gap qwen3_vit_88m nasnetalarge gemma4_vit_167m
"""

NAMES = tuple(_TEXT.split())
FIRST = frozenset(_FIRST.split())
