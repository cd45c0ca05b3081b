"""The architectures that the coverage walk takes: name, data that fits it, family."""

from __future__ import annotations

from dataclasses import dataclass

_TIMM = {
    "convolutional": """resnet26d seresnext26d_32x4d skresnet18 res2net50_26w_4s resnest14d dla34
        dpn68 ese_vovnet19b_dw hrnet_w18_small repvgg_a0 rexnet_100 nf_regnet_b1 convnextv2_atto
        convnext_atto selecsls42b cspresnet50 xception41 tf_efficientnet_b0""",
    "mobile": """mobilenetv3_large_100 mobilenetv4_conv_small ghostnet_100 lcnet_050 fbnetc_100
        efficientnet_lite0 mobileone_s0 fastvit_t8 mixnet_s starnet_s1 repvit_m0_9""",
    "transformer": """vit_tiny_patch16_224 deit3_small_patch16_224 cait_xxs24_224
        xcit_nano_12_p16_224 swin_tiny_patch4_window7_224 swinv2_tiny_window8_256
        eva02_tiny_patch14_224 pvt_v2_b0 twins_pcpvt_small pit_ti_224 crossvit_tiny_240 mvitv2_tiny
        davit_tiny focalnet_tiny_srf""",
    "hybrid": """mobilevit_xxs mobilevitv2_050 coatnet_nano_rw_224 levit_128s efficientformer_l1
        efficientformerv2_s0 edgenext_xx_small poolformer_s12 maxvit_nano_rw_256 convit_tiny
        tiny_vit_5m_224 efficientvit_b0 sequencer2d_s""",
    "MLP": "mixer_s32_224 resmlp_12_224 gmlp_s16_224 convmixer_768_32",
}
_SEQUENCES = {
    "rnn:lstm": "rows:digits",
    "rnn:gru": "rows:digits",
    "hf:bert-base": "tokens:64:2",
    "hf:distilbert-base": "tokens:64:2",
    "hf:minilm-l6": "tokens:64:2",
}
CLASSES = 10
_LARGE = """
    convnext_base convnext_large efficientnet_b5 efficientnet_b6 efficientnet_b7
    efficientnet_v2_l efficientnet_v2_m regnet_x_16gf regnet_x_32gf regnet_x_8gf regnet_y_128gf
    regnet_y_16gf regnet_y_32gf regnet_y_8gf resnext101_32x8d resnext101_64x4d swin_b swin_v2_b
    vgg11 vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32 vit_h_14 vit_l_16
    vit_l_32 wide_resnet101_2 wide_resnet50_2 densenet161 densenet201 resnet152 maxvit_t
"""  # walked last
_SPLITS = {"test": 40, "select": 12, "calibrate": 8, "examples": 64}  # 4 are left to train with


@dataclass(frozen=True)
class Subject:
    """One architecture of the walk."""

    model: str
    data: str
    family: str

    @property
    def group(self) -> str:
        """Which of the issue's shares it counts towards."""
        return self.model.partition(":")[0] if self.family != "sequence" else "sequence"


def subjects() -> list[Subject]:
    """Return all of them, with the size of image that each was made for."""
    everyone = [*_torchvision(), *_timm(), *_sequences()]
    return sorted(everyone, key=lambda s: s.model.partition(":")[2] in _LARGE.split())


def options(subject: Subject) -> dict[str, int]:
    """Return the knobs of the subject's task: just enough examples."""
    return _SPLITS if subject.data.startswith(("noise:", "tokens:")) else {}


def _torchvision() -> list[Subject]:
    from fettle.models._torchvision import import_torchvision

    import_torchvision()
    import torchvision

    found = []
    for name in torchvision.models.list_models(module=torchvision.models):
        side = 299 if name == "inception_v3" else 224
        family = name.partition("_")[0].rstrip("0123456789")
        found.append(Subject(f"torchvision:{name}", f"noise:3x{side}x{side}:{CLASSES}", family))
    return found


def _timm() -> list[Subject]:
    import timm

    found = []
    for family, names in _TIMM.items():
        for name in names.split():
            channels, height, width = timm.get_pretrained_cfg(name).input_size
            data = f"noise:{channels}x{height}x{width}:{CLASSES}"
            found.append(Subject(f"timm:{name}", data, family))
    return found


def _sequences() -> list[Subject]:
    return [Subject(model, data, "sequence") for model, data in _SEQUENCES.items()]
