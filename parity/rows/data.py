"""Rows of the table: data sets, batches, epochs and labels."""

from parity.rows.record import Row, array, given, integers, maps, matrix

FOLDER = """\
import pathlib, tempfile
from PIL import Image
def save(name):
    path = pathlib.Path(folder, name)
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
"""

RECORDING = """\
seen = []
def loss(targets, outputs):
    seen.extend(np.ravel(targets))
    return tf.reduce_mean(outputs)
model = keras.Sequential([layers.Dense(1)])
model.compile("sgd", loss, run_eagerly=True)
"""

TRAINING = """\
model = keras.Sequential([layers.Dense(3)])
model.build((None, 6))
model.set_weights([kernel, np.zeros(3)])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
sgd = keras.optimizers.SGD(0.5)
model.compile(sgd, loss, metrics=["accuracy"], run_eagerly=True)
epoch = model.fit(features, labels, batch_size=20, shuffle=False, verbose=0)
"""

ROWS: tuple[Row, ...] = (
    Row(
        "data.batches",
        "batches from arrays",
        "data",
        "other name",
        keras="data = tf.data.Dataset.from_tensor_slices((images, labels))\n"
        "list(data.batch(4).prefetch(tf.data.AUTOTUNE))",
        torch="from torch.utils.data import DataLoader, TensorDataset\n"
        "list(DataLoader(TensorDataset(images, labels), batch_size=4))",
        inputs={"images": maps(8, 5, 6, 3), "labels": integers(8, below=3)},
        device="cpu",
        note="map(num_parallel_calls=...) and prefetch stand for num_workers and "
        "prefetch_factor: they change the speed, not the values.",
    ),
    Row(
        "data.last_batch",
        "the last, smaller batch",
        "data",
        "same",
        keras="data = tf.data.Dataset.from_tensor_slices(features)\n"
        "[len(batch) for batch in data.batch(4)]",
        torch="from torch.utils.data import DataLoader\n"
        "[len(batch) for batch in DataLoader(features, batch_size=4)]",
        inputs={"features": array(9, 2)},
        device="cpu",
        note="People believe that one of them drops it: both keep it.",
    ),
    Row(
        "data.drop_last",
        "only whole batches",
        "data",
        "other name",
        keras="data = tf.data.Dataset.from_tensor_slices(features)\n"
        "[len(batch) for batch in data.batch(4, drop_remainder=True)]",
        torch="from torch.utils.data import DataLoader\n"
        "loader = DataLoader(features, batch_size=4, drop_last=True)\n"
        "[len(batch) for batch in loader]",
        inputs={"features": array(9, 2)},
        device="cpu",
    ),
    Row(
        "data.shuffle",
        "who shuffles unasked",
        "data",
        "other default",
        keras=RECORDING + "model.fit(features, labels, batch_size=4, verbose=0)\n"
        "np.any(np.diff(seen) < 0)",
        torch="from torch.utils.data import DataLoader, TensorDataset\n"
        "data = TensorDataset(features, labels)\n"
        "seen = [y for _, y in DataLoader(data, batch_size=4, shuffle=True)]\n"
        "(torch.cat(seen).diff() < 0).any()",
        naive_torch="from torch.utils.data import DataLoader, TensorDataset\n"
        "data = TensorDataset(features, labels)\n"
        "seen = [y for _, y in DataLoader(data, batch_size=4)]\n"
        "(torch.cat(seen).diff() < 0).any()",
        symptom="data that is sorted by class trains badly, each epoch in the same "
        "order",
        fix="shuffle=True: fit() shuffles arrays by itself, a DataLoader does not",
        inputs={"features": array(12, 2), "labels": given(list(range(12)))},
        dtypes=("float32",),
        device="cpu",
        note="The value is whether sorted labels came in another order. fit() does "
        "not shuffle a tf.data.Dataset.",
    ),
    Row(
        "data.shuffle_buffer",
        "Dataset.shuffle with a buffer smaller than the data",
        "data",
        "other meaning",
        keras="data = tf.data.Dataset.range(1000).shuffle(1000)\n"
        "order = np.array(list(data.as_numpy_iterator()))\n"
        "np.abs(order - np.arange(1000)).mean()",
        torch="from torch.utils.data import DataLoader\n"
        "loader = DataLoader(torch.arange(1000), batch_size=100, shuffle=True)\n"
        "order = torch.cat(list(loader)).numpy()\n"
        "np.abs(order - np.arange(1000)).mean()",
        naive_keras="data = tf.data.Dataset.range(1000).shuffle(32)\n"
        "order = np.array(list(data.as_numpy_iterator()))\n"
        "np.abs(order - np.arange(1000)).mean()",
        symptom="sorted data stays sorted but for a few places",
        fix="shuffle(len(data)), or shuffle the names of the files before they are "
        "read",
        limit=0.1,
        limit_reason="the orders are drawn; the value is by how many places an "
        "element has moved on average",
        dtypes=("float32",),
        device="cpu",
    ),
    Row(
        "data.reshuffle",
        "another order in each epoch",
        "data",
        "same",
        keras="data = tf.data.Dataset.range(100).shuffle(100)\n"
        "first, second = (list(data.as_numpy_iterator()) for _ in range(2))\n"
        "first != second",
        torch="from torch.utils.data import DataLoader\n"
        "loader = DataLoader(range(100), shuffle=True)\n"
        "first, second = list(loader), list(loader)\n"
        "first != second",
        dtypes=("float32",),
        device="cpu",
        note="People believe that shuffle() draws one order for all epochs: "
        "reshuffle_each_iteration is True.",
    ),
    Row(
        "data.cache",
        "cache() after what is drawn at random",
        "data",
        "other meaning",
        keras="vary = layers.RandomBrightness(0.5, value_range=(0, 1))\n"
        "data = tf.data.Dataset.from_tensor_slices(images).cache().map(vary)\n"
        "first, second = (tf.stack(list(data)) for _ in range(2))\n"
        "tf.reduce_any(first != second)",
        torch="from torchvision.transforms import v2\n"
        "vary = v2.ColorJitter(brightness=0.5)\n"
        "first, second = (\n"
        "    torch.stack([vary(image) for image in images]) for _ in range(2)\n"
        ")\n"
        "(first != second).any()",
        naive_keras="vary = layers.RandomBrightness(0.5, value_range=(0, 1))\n"
        "data = tf.data.Dataset.from_tensor_slices(images).map(vary).cache()\n"
        "first, second = (tf.stack(list(data)) for _ in range(2))\n"
        "tf.reduce_any(first != second)",
        symptom="every epoch sees the same variants of the images",
        fix="cache what is read, and vary it after that",
        inputs={"images": given([[[[0.2, 0.4, 0.6]] * 3] * 3] * 2, "maps")},
        dtypes=("float32",),
        device="cpu",
        note="The value is whether two epochs differ.",
    ),
    Row(
        "data.validation_split",
        "which samples validation_split holds back",
        "data",
        "other meaning",
        keras=RECORDING + "model.fit(features, labels, validation_split=0.25, "
        "verbose=0)\n"
        "seen[-3:]",
        torch="from torch.utils.data import Subset, TensorDataset\n"
        "data = TensorDataset(features, labels)\n"
        "[label for _, label in Subset(data, range(9, 12))]",
        naive_torch="from torch.utils.data import TensorDataset, random_split\n"
        "data = TensorDataset(features, labels)\n"
        "[label for _, label in random_split(data, [0.75, 0.25])[1]]",
        symptom="other samples; with data sorted by class Keras validates on classes "
        "that it has not trained on",
        fix="Subset of the last ones, or shuffle before fit(): Keras takes the end of "
        "the arrays as they stand",
        inputs={"features": array(12, 2), "labels": given(list(range(12)))},
        dtypes=("float32",),
        device="cpu",
    ),
    Row(
        "data.mean_of_batches",
        "the loss of a data set whose last batch is smaller",
        "data",
        "other meaning",
        keras="model = keras.Sequential([layers.Dense(1, use_bias=False)])\n"
        "model.build((None, 5))\n"
        "model.set_weights([kernel])\n"
        "model.compile(loss='mse', run_eagerly=True)\n"
        "model.evaluate(features, targets, batch_size=4, verbose=0)",
        torch="from torch.utils.data import DataLoader, TensorDataset\n"
        "data = TensorDataset(features, targets)\n"
        "total = 0\n"
        "for x, y in DataLoader(data, batch_size=4):\n"
        "    total += F.mse_loss(F.linear(x, kernel), y).item() * len(x)\n"
        "total / len(data)",
        naive_torch="from torch.utils.data import DataLoader, TensorDataset\n"
        "loader = DataLoader(TensorDataset(features, targets), batch_size=4)\n"
        "total = 0\n"
        "for x, y in loader:\n"
        "    total += F.mse_loss(F.linear(x, kernel), y).item()\n"
        "total / len(loader)",
        symptom="the samples of the last batch count more, and the loss depends on "
        "the batch size",
        fix="weigh each batch with its size",
        inputs={
            "features": array(10, 5),
            "targets": array(10, 1),
            "kernel": matrix(5, 1),
        },
        device="cpu",
    ),
    Row(
        "data.history",
        "the training accuracy in History",
        "data",
        "other meaning",
        keras=TRAINING + "model.evaluate(features, labels, verbose=0)",
        torch="model = nn.Linear(6, 3)\n"
        "model.weight.data, model.bias.data = kernel.clone(), torch.zeros(3)\n"
        "sgd = torch.optim.SGD(model.parameters(), lr=0.5)\n"
        "for x, y in zip(features.split(20), labels.split(20)):\n"
        "    sgd.zero_grad()\n"
        "    F.cross_entropy(model(x), y).backward()\n"
        "    sgd.step()\n"
        "outputs = model(features)\n"
        "accuracy = (outputs.argmax(1) == labels).to(outputs.dtype).mean()\n"
        "F.cross_entropy(outputs, labels), accuracy",
        naive_keras=TRAINING + "epoch.history['loss'][0], epoch.history['accuracy'][0]",
        symptom="Keras trains, it seems, an epoch behind, with dropout counted in",
        fix="evaluate() on the training data after the epoch: History holds a mean "
        "over the batches, each before its own step",
        inputs={
            "features": array(60, 6),
            "labels": integers(60, below=3),
            "kernel": matrix(6, 3),
        },
        dtypes=("float64",),
        device="cpu",
    ),
    Row(
        "data.class_order",
        "which label a folder of images gets",
        "data",
        "same",
        keras=FOLDER + "with tempfile.TemporaryDirectory() as folder:\n"
        "    for name in ('2', '10', '1'):\n"
        "        save(f'{name}/0.png')\n"
        "    data = keras.utils.image_dataset_from_directory(folder, verbose=False)\n"
        "[int(name) for name in data.class_names]",
        torch=FOLDER + "with tempfile.TemporaryDirectory() as folder:\n"
        "    for name in ('2', '10', '1'):\n"
        "        save(f'{name}/0.png')\n"
        "    data = torchvision.datasets.ImageFolder(folder)\n"
        "[int(name) for name in data.classes]",
        dtypes=("float32",),
        device="cpu",
        note="People expect the order of the numbers, or of the files: both sort the "
        "names as text, 10 before 2 and capitals before small letters.",
    ),
    Row(
        "data.folder_shuffle",
        "the order of image_dataset_from_directory",
        "data",
        "other default",
        keras=FOLDER + "with tempfile.TemporaryDirectory() as folder:\n"
        "    for index in range(12):\n"
        "        save(f'{index // 4}/{index}.png')\n"
        "    data = keras.utils.image_dataset_from_directory(\n"
        "        folder, shuffle=False, verbose=False\n"
        "    )\n"
        "    labels = [label for _, label in data.unbatch()]\n"
        "labels",
        torch=FOLDER + "with tempfile.TemporaryDirectory() as folder:\n"
        "    for index in range(12):\n"
        "        save(f'{index // 4}/{index}.png')\n"
        "    data = torchvision.datasets.ImageFolder(folder)\n"
        "    labels = [label for _, label in data]\n"
        "labels",
        naive_keras=FOLDER + "with tempfile.TemporaryDirectory() as folder:\n"
        "    for index in range(12):\n"
        "        save(f'{index // 4}/{index}.png')\n"
        "    data = keras.utils.image_dataset_from_directory(\n"
        "        folder, verbose=False\n"
        "    )\n"
        "    labels = [label for _, label in data.unbatch()]\n"
        "labels",
        symptom="predictions do not belong to the labels that were read before, since "
        "each pass has another order",
        fix="shuffle=False where the order matters",
        dtypes=("float32",),
        device="cpu",
        note="Its images come as float32 from 0 to 255, 256 x 256 pixels, resized "
        "without smoothing.",
    ),
    Row(
        "data.folder_formats",
        "which files count as images",
        "data",
        "other default",
        keras=FOLDER + "with tempfile.TemporaryDirectory() as folder:\n"
        "    for end in ('png', 'jpg', 'bmp', 'gif', 'webp', 'tif', 'ppm'):\n"
        "        save(f'0/0.{end}')\n"
        "    data = keras.utils.image_dataset_from_directory(folder, verbose=False)\n"
        "len(data.file_paths)",
        torch=FOLDER + "with tempfile.TemporaryDirectory() as folder:\n"
        "    for end in ('png', 'jpg', 'bmp', 'gif', 'webp', 'tif', 'ppm'):\n"
        "        save(f'0/0.{end}')\n"
        "    ends = ('.bmp', '.gif', '.jpeg', '.jpg', '.png')\n"
        "    data = torchvision.datasets.ImageFolder(\n"
        "        folder, is_valid_file=lambda path: path.lower().endswith(ends)\n"
        "    )\n"
        "len(data)",
        naive_torch=FOLDER + "with tempfile.TemporaryDirectory() as folder:\n"
        "    for end in ('png', 'jpg', 'bmp', 'gif', 'webp', 'tif', 'ppm'):\n"
        "        save(f'0/0.{end}')\n"
        "    data = torchvision.datasets.ImageFolder(folder)\n"
        "len(data)",
        symptom="another number of images, no warning: Keras skips webp, tif and ppm, "
        "ImageFolder skips gif",
        fix="is_valid_file; the better repair is to write the others as PNG",
        dtypes=("float32",),
        device="cpu",
    ),
    Row(
        "data.folder_empty_class",
        "a class without images",
        "data",
        "other default",
        keras=FOLDER + "with tempfile.TemporaryDirectory() as folder:\n"
        "    save('cat/0.png')\n"
        "    pathlib.Path(folder, 'dog').mkdir()\n"
        "    data = keras.utils.image_dataset_from_directory(folder, verbose=False)\n"
        "len(data.class_names), len(data.file_paths)",
        torch=FOLDER + "with tempfile.TemporaryDirectory() as folder:\n"
        "    save('cat/0.png')\n"
        "    pathlib.Path(folder, 'dog').mkdir()\n"
        "    data = torchvision.datasets.ImageFolder(folder, allow_empty=True)\n"
        "len(data.classes), len(data)",
        naive_torch=FOLDER + "with tempfile.TemporaryDirectory() as folder:\n"
        "    save('cat/0.png')\n"
        "    pathlib.Path(folder, 'dog').mkdir()\n"
        "    data = torchvision.datasets.ImageFolder(folder)\n"
        "len(data.classes), len(data)",
        shows="FileNotFoundError",
        says="no valid file for the classes dog",
        symptom="torchvision stops, Keras trains with a class that has no sample",
        fix="allow_empty=True, or take the folder away on both sides",
        dtypes=("float32",),
        device="cpu",
    ),
    Row(
        "data.one_hot",
        "labels as one-hot vectors",
        "data",
        "other name",
        keras="keras.ops.one_hot(labels, 5)",
        torch="F.one_hot(labels, 5)",
        operations=("one_hot",),
        inputs={"labels": integers(7, below=5)},
        note="keras.utils.to_categorical gives the same for good labels. Keras gives "
        "floats, PyTorch int64.",
    ),
    Row(
        "data.one_hot_dtype",
        "F.one_hot as the targets of a loss",
        "data",
        "other default",
        keras="targets = keras.ops.one_hot(labels, 5, dtype=dtype)\n"
        "loss = keras.losses.CategoricalCrossentropy(from_logits=True)\n"
        "loss(targets, logits)",
        torch="targets = F.one_hot(labels, 5).to(logits.dtype)\n"
        "F.cross_entropy(logits, targets)",
        naive_torch="F.cross_entropy(logits, F.one_hot(labels, 5))",
        shows="RuntimeError",
        says="Expected floating point type for target",
        symptom="a loss that wants floats as targets",
        fix="cast: F.one_hot gives int64",
        operations=("one_hot",),
        inputs={"labels": integers(7, below=5), "logits": array(7, 5)},
    ),
    Row(
        "data.one_hot_bad_label",
        "one-hot of a label that is no class",
        "data",
        "other meaning",
        keras="tf.one_hot(labels, 3, dtype=dtype)",
        torch="(labels[:, None] == torch.arange(3)).to(torch.get_default_dtype())",
        naive_torch="F.one_hot(labels, 3)",
        shows="RuntimeError",
        says="must be non-negative",
        symptom="PyTorch stops; in TensorFlow the row is 0 and adds nothing to the "
        "loss, which nobody notices",
        fix="check the labels on both sides; comparing with arange gives rows of 0",
        operations=("one_hot",),
        inputs={"labels": given([0, 1, -1, 3])},
        device="cpu",
    ),
    Row(
        "data.to_categorical_bad_label",
        "to_categorical of the label -1",
        "data",
        "other meaning",
        keras="tf.one_hot(labels, 3, dtype=dtype)",
        torch="(labels[:, None] == torch.arange(3)).to(torch.get_default_dtype())",
        naive_keras="keras.utils.to_categorical(np.array(labels), 3)",
        symptom="'unknown' counts as the last class",
        fix="tf.one_hot gives a row of 0; to_categorical counts from the end, as "
        "NumPy does, and only a label that is too large is an IndexError",
        operations=("one_hot",),
        inputs={"labels": given([0, 1, -1])},
        device="cpu",
    ),
)
