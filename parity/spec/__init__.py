"""What both sides must agree on; loads neither framework.

Facts about the experiment stand here once: recipes, data sets, batch order, weight
layouts, file formats, command lines. What a reader wants to see twice (models,
operations, data pipelines, training loops) is in `keras_impl` and `torch_impl`.
"""
