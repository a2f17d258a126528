"""Training from a recipe. The names load on first use; Lightning comes with the first call that trains."""
