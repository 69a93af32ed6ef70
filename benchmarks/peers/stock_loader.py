"""The article's classifier as the loop that everyone writes: a Dataset and a DataLoader."""

import time
from collections.abc import Sized

import torch
import torchvision
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

from benchmarks.peers.program import Images, Labels, Outcome, Pixels, run_program


class ImageDataset(Dataset[tuple[Tensor, int]], Sized):
    """Hands out one image at a time, through PIL, as torchvision's own data sets do."""

    def __init__(self, images: Pixels, labels: Labels) -> None:
        self.images = images
        self.labels = labels
        self.transform = ToTensor()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "1 height width"], int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def train_stock(images: Images, num_epochs: int, seed: int) -> Outcome:
    """Train in float32 with Adam, while two worker processes prepare batches of 32."""
    torch.manual_seed(seed)
    train = ImageDataset(images.train_images, images.train_labels)
    test = ImageDataset(images.test_images, images.test_labels)
    train_loader = DataLoader(train, batch_size=32, shuffle=True, num_workers=2)
    test_loader = DataLoader(test, batch_size=1000)
    model = _network()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)

    seconds, accuracies = 0.0, []
    for _ in range(num_epochs):
        start = time.perf_counter()
        model.train()
        for inputs, labels in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(inputs), labels)
            loss.backward()
            optimizer.step()
        seconds += time.perf_counter() - start
        accuracies.append(_accuracy(model, test_loader))
    return Outcome(
        seconds=seconds,
        accuracies=accuracies,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        versions={"torch": torch.__version__, "torchvision": torchvision.__version__},
    )


def _network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 3 * 3, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


@torch.no_grad()
def _accuracy(model: nn.Module, loader: DataLoader[tuple[Tensor, int]]) -> float:
    model.eval()
    num_correct, num_seen = 0, 0
    for inputs, labels in loader:
        num_correct += int((model(inputs).argmax(dim=1) == labels).sum())
        num_seen += len(labels)
    return num_correct / num_seen


if __name__ == "__main__":
    run_program(train_stock)
