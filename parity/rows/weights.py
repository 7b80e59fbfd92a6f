"""The layout of weights: what to turn when they are copied from side to side."""

from parity.rows.record import Row, array, maps

ROWS: tuple[Row, ...] = (
    Row(
        "weights.conv2d",
        "a convolution's kernel: (h, w, in, out) and (out, in, h, w)",
        "weights",
        "other layout",
        keras="""\
conv = layers.Conv2D(4, 3)
conv.build(images.shape)
conv.set_weights([kernel, bias])
conv(images)""",
        torch="""\
conv = nn.Conv2d(3, 4, 3)
conv.load_state_dict({"weight": kernel.permute(3, 2, 0, 1), "bias": bias})
conv(images)""",
        naive_torch="""\
conv = nn.Conv2d(3, 4, 3)
conv.load_state_dict({"weight": kernel.permute(3, 2, 1, 0), "bias": bias})
conv(images)""",
        symptom="no error for square kernels, but each filter lies on its side",
        fix="transpose(3, 2, 0, 1); NumPy's .T turns rows and columns too",
        operations=("conv2d",),
        inputs={
            "images": maps(2, 7, 6, 3),
            "kernel": array(3, 3, 3, 4, scale=0.2),
            "bias": array(4),
        },
    ),
    Row(
        "weights.grouped_conv2d",
        "a grouped convolution's kernel: (h, w, in / groups, out)",
        "weights",
        "other layout",
        keras="""\
conv = layers.Conv2D(6, 3, groups=3, use_bias=False)
conv.build(images.shape)
conv.set_weights([kernel])
conv(images)""",
        torch="""\
conv = nn.Conv2d(6, 6, 3, groups=3, bias=False)
conv.load_state_dict({"weight": kernel.permute(3, 2, 0, 1)})
conv(images)""",
        operations=("conv2d",),
        inputs={
            "images": maps(2, 7, 6, 6),
            "kernel": array(3, 3, 2, 6, scale=0.2),
        },
        note="the groups stand in the same order: transposed like any other kernel",
    ),
    Row(
        "weights.depthwise_conv2d",
        "a depthwise kernel with several filters per channel",
        "weights",
        "other layout",
        keras="""\
conv = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)
conv.build(images.shape)
conv.set_weights([kernel])
conv(images)""",
        torch="""\
conv = nn.Conv2d(3, 6, 3, groups=3, bias=False)
weight = kernel.permute(2, 3, 0, 1).reshape(6, 1, 3, 3)
conv.load_state_dict({"weight": weight})
conv(images)""",
        naive_torch="""\
conv = nn.Conv2d(3, 6, 3, groups=3, bias=False)
weight = kernel.permute(3, 2, 0, 1).reshape(6, 1, 3, 3)
conv.load_state_dict({"weight": weight})
conv(images)""",
        symptom="right for one filter per channel, wrong filters on channels for more",
        fix="transpose(2, 3, 0, 1), then reshape: channels change slowest",
        operations=("depthwise_conv2d",),
        inputs={
            "images": maps(2, 7, 6, 3),
            "kernel": array(3, 3, 3, 2, scale=0.3),
        },
    ),
    Row(
        "weights.separable_conv2d",
        "a separable convolution: one bias and one activation, at its end",
        "weights",
        "missing on one side",
        keras="""\
conv = layers.SeparableConv2D(5, 3, activation="relu")
conv.build(images.shape)
conv.set_weights([depthwise, pointwise, bias])
conv(images)""",
        torch="""\
depth = nn.Conv2d(3, 3, 3, groups=3, bias=False)
point = nn.Conv2d(3, 5, 1)
depth.load_state_dict({"weight": depthwise.permute(2, 3, 0, 1)})
point.load_state_dict({"weight": pointwise.permute(3, 2, 0, 1), "bias": bias})
nn.Sequential(depth, point, nn.ReLU())(images)""",
        naive_torch="""\
depth = nn.Conv2d(3, 3, 3, groups=3, bias=False)
point = nn.Conv2d(3, 5, 1)
depth.load_state_dict({"weight": depthwise.permute(2, 3, 0, 1)})
point.load_state_dict({"weight": pointwise.permute(3, 2, 0, 1), "bias": bias})
nn.Sequential(depth, nn.ReLU(), point, nn.ReLU())(images)""",
        symptom="a ReLU too many between the two, as MobileNet has it",
        fix="nothing between the two, and no bias in the first",
        operations=("separable_conv2d",),
        inputs={
            "images": maps(2, 7, 6, 3),
            "depthwise": array(3, 3, 3, 1, scale=0.3),
            "pointwise": array(1, 1, 3, 5, scale=0.6),
            "bias": array(5),
        },
    ),
    Row(
        "weights.conv2d_transpose",
        "a transposed convolution's kernel: (h, w, out, in) and (in, out, h, w)",
        "weights",
        "other layout",
        keras="""\
conv = layers.Conv2DTranspose(4, 3, strides=2, use_bias=False)
conv.build(images.shape)
conv.set_weights([kernel])
conv(images)""",
        torch="""\
conv = nn.ConvTranspose2d(3, 4, 3, stride=2, bias=False)
conv.load_state_dict({"weight": kernel.permute(3, 2, 0, 1)})
conv(images)""",
        naive_torch="""\
conv = nn.ConvTranspose2d(3, 4, 3, stride=2, bias=False)
conv.load_state_dict({"weight": kernel.permute(3, 2, 0, 1).flip(2, 3)})
conv(images)""",
        symptom="every filter turned by 180 degrees, with no error",
        fix="no flip: on both sides it is the gradient of the convolution",
        operations=("conv2d_transpose",),
        inputs={
            "images": maps(2, 5, 4, 3),
            "kernel": array(3, 3, 4, 3, scale=0.3),
        },
    ),
    Row(
        "weights.dense",
        "a dense layer's kernel: (in, out) and (out, in)",
        "weights",
        "other layout",
        keras="""\
dense = layers.Dense(6)
dense.build(features.shape)
dense.set_weights([kernel, bias])
dense(features)""",
        torch="""\
dense = nn.Linear(6, 6)
dense.load_state_dict({"weight": kernel.T, "bias": bias})
dense(features)""",
        naive_torch="""\
dense = nn.Linear(6, 6)
dense.load_state_dict({"weight": kernel, "bias": bias})
dense(features)""",
        symptom="no error where a layer has as many outputs as inputs",
        fix="transpose it",
        operations=("dense",),
        inputs={
            "features": array(4, 6),
            "kernel": array(6, 6, scale=0.4),
            "bias": array(6),
        },
    ),
    Row(
        "weights.dense_after_flatten",
        "the first dense layer after the feature maps",
        "weights",
        "other layout",
        keras="layers.Flatten()(images) @ kernel",
        torch="""\
weight = kernel.reshape(4, 5, 3, 6).permute(3, 2, 0, 1).flatten(1)
F.linear(nn.Flatten()(images), weight)""",
        naive_torch="F.linear(nn.Flatten()(images), kernel.T)",
        symptom="shapes fit, but features are permuted: accuracy is at chance",
        fix="reorder its kernel, from (H, W, C) to (C, H, W)",
        operations=("flatten", "dense"),
        inputs={"images": maps(2, 4, 5, 3), "kernel": array(60, 6, scale=0.1)},
    ),
    Row(
        "weights.flatten",
        "feature maps as vectors",
        "weights",
        "other layout",
        keras="layers.Flatten()(images)",
        torch="images.permute(0, 2, 3, 1).flatten(1)",
        naive_torch="nn.Flatten()(images)",
        symptom="the same numbers in another order",
        fix="bring the channels to the end first, or reorder what reads the vector",
        operations=("flatten",),
        inputs={"images": maps(2, 4, 5, 3)},
    ),
    Row(
        "weights.images",
        "images that are stored as (N, H, W, C)",
        "weights",
        "other layout",
        keras="keras.ops.conv(images, kernel)",
        torch="F.conv2d(images.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1))",
        naive_torch="F.conv2d(images.reshape(2, 3, 7, 6), kernel.permute(3, 2, 0, 1))",
        symptom="the shape that PyTorch wants, with pixels scrambled",
        fix="permute moves axes; reshape and view read the same memory otherwise",
        operations=("conv2d",),
        inputs={"images": array(2, 7, 6, 3), "kernel": array(3, 3, 3, 4, scale=0.2)},
    ),
    Row(
        "weights.pixel_shuffle",
        "channels made into pixels, as in super-resolution",
        "weights",
        "other layout",
        keras="tf.nn.depth_to_space(images, 2)",
        torch="""\
channels = images.unflatten(1, (4, 3)).transpose(1, 2).flatten(1, 2)
nn.PixelShuffle(2)(channels)""",
        naive_torch="nn.PixelShuffle(2)(images)",
        symptom="colours and pixels are mixed up where there are several channels",
        fix="reorder them: TensorFlow reads (r, r, C), PyTorch (C, r, r)",
        operations=("pixel_shuffle",),
        inputs={"images": maps(2, 4, 5, 12)},
        note="or permute the filters of the convolution in front, once",
    ),
    Row(
        "weights.pixel_unshuffle",
        "pixels made into channels",
        "weights",
        "other layout",
        keras="tf.nn.space_to_depth(images, 2)",
        torch="""\
channels = nn.PixelUnshuffle(2)(images)
channels.unflatten(1, (3, 4)).transpose(1, 2).flatten(1, 2)""",
        naive_torch="nn.PixelUnshuffle(2)(images)",
        symptom="the same channels in another order",
        fix="reorder them: TensorFlow writes (r, r, C), PyTorch (C, r, r)",
        operations=("pixel_unshuffle",),
        inputs={"images": maps(2, 4, 6, 3)},
    ),
    Row(
        "weights.count",
        "the number of parameters of a model with batch normalisation",
        "weights",
        "other meaning",
        keras="""\
model = keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization()])
model.build((None, 8, 8, 3))
sum(np.prod(weight.shape) for weight in model.trainable_weights)""",
        torch="""\
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
sum(weight.numel() for weight in model.parameters())""",
        naive_keras="""\
model = keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization()])
model.build((None, 8, 8, 3))
model.count_params()""",
        symptom="Keras counts more parameters for the same network",
        fix="count trainable_weights: running statistics are buffers in PyTorch",
    ),
    Row(
        "weights.frozen",
        "a layer that is not trained",
        "weights",
        "other name",
        keras="""\
model = keras.Sequential([layers.Conv2D(4, 3), layers.Conv2D(5, 3)])
model.build((None, 8, 8, 3))
model.layers[0].trainable = False
sum(np.prod(weight.shape) for weight in model.trainable_weights)""",
        torch="""\
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3))
model[0].requires_grad_(False)
sum(weight.numel() for weight in model.parameters() if weight.requires_grad)""",
        note="in a batch normalisation the two mean different things",
    ),
)
