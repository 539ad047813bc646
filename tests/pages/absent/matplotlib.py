raise ImportError("the book must build where matplotlib is not installed")
