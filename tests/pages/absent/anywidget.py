raise ImportError("the book must build where anywidget is not installed")
