"""Transformers with random weights and a small head."""

import torch
from torch import nn

from fettle.models._torchvision import import_torchvision

CLASSES = 10  # the fewer, the less often the flat logits of random weights change places


class Encoder(nn.Module):
    """A BERT-shaped encoder of 4 layers of 256; embedded tokens (n, 1, 128, 256) in."""

    def __init__(self) -> None:
        super().__init__()
        import_torchvision()  # transformers looks for it
        from transformers import BertConfig, BertModel

        config = BertConfig(
            hidden_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=1024,
            vocab_size=100,
            attn_implementation="eager",
        )
        self.bert = BertModel(config, add_pooling_layer=False)
        self.head = nn.Linear(256, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits, shape (n, CLASSES)."""
        hidden = self.bert(inputs_embeds=x.squeeze(1)).last_hidden_state  # n, 128, 256
        return self.head(hidden.mean(1))


def bert() -> nn.Module:
    """Return the BERT-shaped encoder."""
    torch.manual_seed(0)
    return Encoder().eval()


def vit_tiny() -> nn.Module:
    """Return timm's ViT-tiny."""
    import_torchvision()  # timm looks for it
    import timm

    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES).eval()
