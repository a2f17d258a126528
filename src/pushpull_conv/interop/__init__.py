"""Other libraries' doors to this one; each module needs its library and is imported on its own.

`tidy`: one table for pandas and its like. `metrics`: torchmetrics. `callback`: Lightning. `timm_models`: timm's
registry. `hub`: Hugging Face, with the model card that `card` writes.
"""
