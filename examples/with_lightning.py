"""A method inside a LightningModule: `losses` in `training_step`, `after_step` behind the optimizer.

pip install pytorch-lightning
python examples/with_lightning.py
"""

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from relatum import Backbone, Batch, ContrastiveView, MoCo, load


class Contrastive(LightningModule):
    """MoCo, whose momentum copy and queue move in `after_step`, after each step of the optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.method = MoCo(Backbone("resnet8", stem="cifar"), queue_size=256, key_splits=1)

    def training_step(self, views: list[Tensor], number: int) -> Tensor:
        """The sum of the terms; each is logged."""
        terms = self.method.losses(Batch.unlabeled(*views))
        self.log_dict({f"loss/{name}": term.detach() for name, term in terms.items()})
        return torch.stack(list(terms.values())).sum()

    def on_train_batch_end(self, *args: object) -> None:
        """What follows an optimizer step."""
        self.method.after_step(self.global_step / self.trainer.estimated_stepping_batches)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Any will do."""
        return torch.optim.SGD(self.parameters(), lr=0.03, momentum=0.9)


def main(epochs: int = 2, images: int = 1200) -> Contrastive:
    """Train it on digits."""
    digits = load("digits")
    view, generator = ContrastiveView(size=32, min_scale=0.35, flip=0.0), torch.Generator().manual_seed(0)

    def two_views(rows: list[tuple[Tensor]]) -> list[Tensor]:
        pixels = torch.stack([row for (row,) in rows])
        return [view(pixels, digits.mean, digits.std, generator) for _ in range(2)]

    loader = DataLoader(
        TensorDataset(digits.tensors()[0][:images]), 64, shuffle=True, drop_last=True, collate_fn=two_views
    )
    torch.manual_seed(0)
    module = Contrastive()
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)
    print({name: round(float(value), 3) for name, value in trainer.callback_metrics.items()})
    return module


if __name__ == "__main__":
    main()
