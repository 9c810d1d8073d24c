"""What is known by name: bases and datasets, with the data of those that ship."""
