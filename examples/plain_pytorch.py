"""A loop of your own: Relatum brings the method, the views and the evaluator, PyTorch the rest.

python examples/plain_pytorch.py
"""

import torch
from torchvision.models import resnet18

from relatum import KNN, Backbone, ContrastiveView, Embeddings, EvaluationView, Jaccard, SimCLR, load


def main(epochs: int = 5, count: int = 1200) -> dict[str, float]:
    """Train torchvision's ResNet-18 on digits without labels; k-NN accuracy in percent."""
    digits = load("digits")
    pixels, _ = digits.tensors()
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = Backbone.wrap(resnet18(), classifier="fc", size=32)
    method = SimCLR(network, relation=Jaccard(), temperature=0.2)
    view = ContrastiveView(size=32, min_scale=0.35, flip=0.0)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
    for epoch in range(epochs):
        order = torch.randperm(count, generator=generator)
        for rows in order.split(64):
            x1, x2 = (view(pixels[rows], digits.mean, digits.std, generator) for _ in range(2))
            loss = method.loss((x1, x2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

    clean = EvaluationView(size=32)
    with torch.no_grad():
        train, test = (
            Embeddings(network.eval().embed(clean(images, digits.mean, digits.std, generator)), labels)
            for images, labels in (digits.tensors("train"), digits.tensors("test"))
        )
    return KNN(k=20)(train, test)


if __name__ == "__main__":
    print(main())
