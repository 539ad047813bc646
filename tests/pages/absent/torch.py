raise ImportError("the book must build where PyTorch is not installed")
