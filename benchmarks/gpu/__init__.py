"""What is to be measured in the first minutes on a GPU, each within a time limit: `python -m benchmarks.gpu`."""
