"""Optimizers: the steps that they make from the same gradients, and what freezes."""

from parity.rows.record import Row, array

STEPS = {"start": array(4, 3), "gradients": array(10, 4, 3)}
SMALL_STEPS = {"start": array(4, 3), "gradients": array(10, 4, 3, scale=1e-6)}
TWO_TENSORS = {
    "kernel": array(4, 3),
    "bias": array(3),
    "gradients": array(10, 4, 3),
    "bias_gradients": array(10, 3, scale=3.0),
}

ROWS = (
    Row(
        "optimizers.sgd",
        "plain steps down the gradient",
        "optimizers",
        "same",
        keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.SGD(0.1)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights], lr=0.1)
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights""",
        operations=("sgd",),
        inputs=STEPS,
    ),
    Row(
        "optimizers.sgd_default_rate",
        "the learning rate of SGD if none is given",
        "optimizers",
        "other default",
        keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.SGD()
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights], lr=0.01)
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights""",
        naive_torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights])
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights""",
        symptom="PyTorch learns ten times slower",
        fix="say the learning rate",
        operations=("sgd",),
        inputs=STEPS,
    ),
    Row(
        "optimizers.momentum",
        "momentum at a constant learning rate",
        "optimizers",
        "same",
        keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights], lr=0.1, momentum=0.9)
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights""",
        operations=("momentum",),
        inputs=STEPS,
        dtypes=("float32",),
        note="believed to differ, since Keras has the rate inside the velocity; "
        "it matters only once the rate changes",
    ),
    Row(
        "optimizers.nesterov",
        "Nesterov's momentum at a constant learning rate",
        "optimizers",
        "same",
        keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights], lr=0.1, momentum=0.9, nesterov=True)
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights""",
        operations=("nesterov",),
        inputs=STEPS,
        dtypes=("float32",),
    ),
    Row(
        "optimizers.float32_constants",
        "the constants of an optimizer in a float64 run",
        "optimizers",
        "other meaning",
        keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.SGD(0.1, momentum=np.float64(0.9))
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights], lr=0.1, momentum=0.9)
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights""",
        naive_keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        symptom="seven digits agree and no more: on TensorFlow, Keras makes float32 of "
        "Python's numbers before it makes float64 of these",
        fix="np.float64(0.9), which keeps its digits; so for weight_decay and betas",
        operations=("momentum",),
        inputs=STEPS,
        dtypes=("float64",),
    ),
    Row(
        "optimizers.momentum_rate_change",
        "momentum when the learning rate changes",
        "optimizers",
        "other meaning",
        keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.SGD(0.1, momentum=np.float64(0.9))
for step, gradient in enumerate(gradients):
    if step == 5:
        optimizer.learning_rate = 0.01
    optimizer.apply([gradient], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights], lr=0.1, momentum=0.9)
for step, gradient in enumerate(gradients):
    if step == 5:
        optimizer.param_groups[0]["lr"] = 0.01
        optimizer.state[weights]["momentum_buffer"] *= 0.1 / 0.01
    weights.grad = gradient
    optimizer.step()
weights""",
        naive_torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights], lr=0.1, momentum=0.9)
for step, gradient in enumerate(gradients):
    if step == 5:
        optimizer.param_groups[0]["lr"] = 0.01
    weights.grad = gradient
    optimizer.step()
weights""",
        symptom="after a drop Keras coasts on at the old rate for some steps, PyTorch "
        "drops at once: Keras's velocity has the rate inside",
        fix="with every change of the rate, scale PyTorch's buffer by old / new",
        operations=("momentum",),
        inputs=STEPS,
    ),
    Row(
        "optimizers.momentum_rate_of_torch",
        "PyTorch's momentum in Keras when the rate changes",
        "optimizers",
        "other meaning",
        keras="""\
from keras_impl.optim import momentum

weights = keras.Variable(start)
optimizer = momentum(0.1)
for step, gradient in enumerate(gradients):
    if step == 5:
        optimizer.learning_rate = 0.01
    optimizer.apply([gradient], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights], lr=0.1, momentum=0.9)
for step, gradient in enumerate(gradients):
    if step == 5:
        optimizer.param_groups[0]["lr"] = 0.01
    weights.grad = gradient
    optimizer.step()
weights""",
        naive_keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
for step, gradient in enumerate(gradients):
    if step == 5:
        optimizer.learning_rate = 0.01
    optimizer.apply([gradient], [weights])
weights""",
        symptom="Keras coasts on at the old rate",
        fix="keras_impl.optim.momentum, whose velocity has no rate inside",
        operations=("momentum",),
        inputs=STEPS,
    ),
    Row(
        "optimizers.learning_rate",
        "setting the learning rate",
        "optimizers",
        "other name",
        keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.SGD(0.1)
optimizer.learning_rate = 0.02
optimizer.apply([gradients[0]], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights], lr=0.1)
for group in optimizer.param_groups:
    group["lr"] = 0.02
weights.grad = gradients[0]
optimizer.step()
weights""",
        operations=("sgd",),
        inputs=STEPS,
    ),
    Row(
        "optimizers.zero_grad",
        "who forgets the last step's gradients",
        "optimizers",
        "missing on one side",
        keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.SGD(0.1)
for slopes in gradients:
    with tf.GradientTape() as tape:
        loss = keras.ops.sum(slopes * weights**2)
    optimizer.apply(tape.gradient(loss, [weights.value]), [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights], lr=0.1)
for slopes in gradients:
    optimizer.zero_grad()
    (slopes * weights**2).sum().backward()
    optimizer.step()
weights""",
        naive_torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights], lr=0.1)
for slopes in gradients:
    (slopes * weights**2).sum().backward()
    optimizer.step()
weights""",
        symptom="every step contains all gradients before it",
        fix="optimizer.zero_grad() in each step: backward() adds",
        operations=("sgd",),
        inputs=STEPS,
    ),
    Row(
        "optimizers.sgd_weight_decay",
        "weight_decay of SGD with momentum",
        "optimizers",
        "other meaning",
        keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.SGD(
    0.1, momentum=np.float64(0.9), weight_decay=np.float64(0.1)
)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights], lr=0.1, momentum=0.9)
for gradient in gradients:
    weights.grad = gradient
    with torch.no_grad():
        weights.mul_(1 - 0.1 * 0.1)
    optimizer.step()
weights""",
        naive_torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights], lr=0.1, momentum=0.9, weight_decay=0.1)
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights""",
        symptom="PyTorch decays several times as strongly: its decay is part of the "
        "gradient and gathers momentum, Keras's stands beside the step",
        fix="in PyTorch, shrink the weights by the rate times the decay before a step",
        operations=("momentum",),
        inputs=STEPS,
        note="without momentum the two are the same",
    ),
    Row(
        "optimizers.sgd_weight_decay_of_torch",
        "PyTorch's weight_decay in Keras",
        "optimizers",
        "other meaning",
        keras="""\
from keras_impl.optim import momentum

weights = keras.Variable(start)
optimizer = momentum(0.1, weight_decay=0.1)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights], lr=0.1, momentum=0.9, weight_decay=0.1)
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights""",
        naive_keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        symptom="Keras decays several times less",
        fix="keras_impl.optim.momentum, or keras.regularizers.L2 with half of it",
        operations=("momentum",),
        inputs=STEPS,
    ),
    Row(
        "optimizers.decay_exclusion",
        "weights that do not decay",
        "optimizers",
        "other name",
        keras="""\
kernel = keras.Variable(kernel, name="kernel")
bias = keras.Variable(bias, name="bias")
optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
optimizer.exclude_from_weight_decay(var_names=["bias"])
for gradient, bias_gradient in zip(gradients, bias_gradients):
    optimizer.apply([gradient, bias_gradient], [kernel, bias])
[kernel, bias]""",
        torch="""\
kernel, bias = nn.Parameter(kernel), nn.Parameter(bias)
groups = [{"params": [kernel]}, {"params": [bias], "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=0.01, eps=1e-7, weight_decay=0.1)
for kernel.grad, bias.grad in zip(gradients, bias_gradients):
    optimizer.step()
[kernel, bias]""",
        naive_torch="""\
kernel, bias = nn.Parameter(kernel), nn.Parameter(bias)
optimizer = torch.optim.AdamW([kernel, bias], lr=0.01, eps=1e-7, weight_decay=0.1)
for kernel.grad, bias.grad in zip(gradients, bias_gradients):
    optimizer.step()
[kernel, bias]""",
        symptom="biases and the scales of normalizations decay too: neither side "
        "leaves them out by itself",
        fix="two groups of parameters, one with weight_decay=0",
        operations=("adamw",),
        inputs=TWO_TENSORS,
        dtypes=("float32",),
    ),
    Row(
        "optimizers.adam_epsilon",
        "where Adam's epsilon stands",
        "optimizers",
        "other meaning",
        keras="""\
weights = keras.Variable(np.array(start))
optimizer = keras.optimizers.Adam(0.01, np.float64(0.9), np.float64(0.999))
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights - start""",
        torch="""\
weights = nn.Parameter(start.clone())
optimizer = torch.optim.Adam([weights], lr=0.01)
for step, gradient in enumerate(gradients, 1):
    optimizer.param_groups[0]["eps"] = 1e-7 / (1 - 0.999**step) ** 0.5
    weights.grad = gradient
    optimizer.step()
weights - start""",
        naive_torch="""\
weights = nn.Parameter(start.clone())
optimizer = torch.optim.Adam([weights], lr=0.01, eps=1e-7)
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights - start""",
        symptom="nothing to see at usual gradients, steps several times smaller in "
        "Keras at tiny ones: it adds epsilon before the bias correction",
        fix="correct epsilon in every step; or keras_impl.optim.adam in Keras",
        operations=("adam",),
        inputs=SMALL_STEPS,
        dtypes=("float64",),
        note="in float32 a few digits are missing: Keras takes 1 - beta^t in it",
    ),
    Row(
        "optimizers.adam_paper",
        "Adam as in its paper",
        "optimizers",
        "other meaning",
        keras="""\
from keras_impl.optim import adam

weights = keras.Variable(np.array(start))
optimizer = adam(0.01)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights - start""",
        torch="""\
weights = nn.Parameter(start.clone())
optimizer = torch.optim.Adam([weights], lr=0.01)
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights - start""",
        naive_keras="""\
weights = keras.Variable(np.array(start))
optimizer = keras.optimizers.Adam(0.01)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights - start""",
        symptom="a default epsilon ten times larger, and at another place",
        fix="keras_impl.optim.adam",
        operations=("adam",),
        inputs=SMALL_STEPS,
    ),
    Row(
        "optimizers.amsgrad",
        "Adam with amsgrad",
        "optimizers",
        "other meaning",
        keras="""\
weights = keras.Variable(np.array(start))
optimizer = keras.optimizers.Adam(
    0.01, np.float64(0.9), np.float64(0.999), amsgrad=True
)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights - start""",
        torch="""\
weights = nn.Parameter(start.clone())
optimizer = torch.optim.Adam([weights], lr=0.01, amsgrad=True)
for step, gradient in enumerate(gradients, 1):
    optimizer.param_groups[0]["eps"] = 1e-7 / (1 - 0.999**step) ** 0.5
    weights.grad = gradient
    optimizer.step()
weights - start""",
        naive_torch="""\
weights = nn.Parameter(start.clone())
optimizer = torch.optim.Adam([weights], lr=0.01, eps=1e-7, amsgrad=True)
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights - start""",
        symptom="as Adam's: only epsilon differs",
        fix="correct epsilon in every step",
        operations=("adam",),
        inputs=SMALL_STEPS,
        dtypes=("float64",),
        note="in float32 a few digits are missing: Keras takes 1 - beta^t in it",
    ),
    Row(
        "optimizers.adam_weight_decay",
        "weight_decay of Adam",
        "optimizers",
        "other meaning",
        keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.Adam(
    0.01, np.float64(0.9), np.float64(0.999), weight_decay=np.float64(0.1)
)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.AdamW([weights], lr=0.01, weight_decay=0.1)
for step, gradient in enumerate(gradients, 1):
    optimizer.param_groups[0]["eps"] = 1e-7 / (1 - 0.999**step) ** 0.5
    weights.grad = gradient
    optimizer.step()
weights""",
        naive_torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.Adam([weights], lr=0.01, weight_decay=0.1)
for step, gradient in enumerate(gradients, 1):
    optimizer.param_groups[0]["eps"] = 1e-7 / (1 - 0.999**step) ** 0.5
    weights.grad = gradient
    optimizer.step()
weights""",
        symptom="another algorithm of the same name: with weight_decay, Keras's Adam "
        "is AdamW, PyTorch's adds the decay to the gradient",
        fix="torch.optim.AdamW",
        operations=("adam", "adamw"),
        inputs=STEPS,
    ),
    Row(
        "optimizers.adamw_default_decay",
        "how much AdamW decays if not told",
        "optimizers",
        "other default",
        keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.AdamW(
    0.01, beta_1=np.float64(0.9), beta_2=np.float64(0.999)
)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.AdamW([weights], lr=0.01, weight_decay=0.004)
for step, gradient in enumerate(gradients, 1):
    optimizer.param_groups[0]["eps"] = 1e-7 / (1 - 0.999**step) ** 0.5
    weights.grad = gradient
    optimizer.step()
weights""",
        naive_torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.AdamW([weights], lr=0.01)
for step, gradient in enumerate(gradients, 1):
    optimizer.param_groups[0]["eps"] = 1e-7 / (1 - 0.999**step) ** 0.5
    weights.grad = gradient
    optimizer.step()
weights""",
        symptom="two and a half times the decay",
        fix="say the decay; both multiply it by the learning rate",
        operations=("adamw",),
        inputs=STEPS | {"start": array(4, 3, scale=10.0)},
    ),
    Row(
        "optimizers.nadam",
        "the schedule of Nadam's momentum",
        "optimizers",
        "other default",
        keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.Nadam(0.01, np.float64(0.9), np.float64(0.999))
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.NAdam([weights], lr=0.01, eps=1e-7, momentum_decay=1.0)
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights""",
        naive_torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.NAdam([weights], lr=0.01, eps=1e-7)
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights""",
        symptom="Keras's momentum is warm after some steps, PyTorch's after thousands",
        fix="momentum_decay=1.0; and say the learning rate, PyTorch's default is twice "
        "Keras's",
        inputs=STEPS,
        dtypes=("float64",),
        limit=1e-8,
        limit_reason="Keras rounds the 0.96 of its schedule to float32",
    ),
    Row(
        "optimizers.rmsprop",
        "where RMSprop's epsilon stands",
        "optimizers",
        "other meaning",
        keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.RMSprop(0.01, rho=0.9)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        torch="""\
weights, average = start, torch.zeros_like(start)
for gradient in gradients:
    average = 0.9 * average + (1 - 0.9) * gradient**2
    weights = weights - 0.01 * gradient / (average + 1e-7).sqrt()
weights""",
        naive_torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.RMSprop([weights], lr=0.01, alpha=0.9, eps=1e-7)
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights""",
        symptom="larger steps in PyTorch at small gradients: Keras adds epsilon under "
        "the root",
        fix="no argument does it; write the step, it is one line",
        operations=("rmsprop",),
        inputs={"start": array(4, 3), "gradients": array(10, 4, 3, scale=1e-4)},
    ),
    Row(
        "optimizers.rmsprop_of_torch",
        "PyTorch's RMSprop in Keras",
        "optimizers",
        "other meaning",
        keras="""\
from keras_impl.optim import rmsprop

weights = keras.Variable(start)
optimizer = rmsprop(0.01)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.RMSprop([weights], lr=0.01, alpha=0.9)
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights""",
        naive_keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.RMSprop(0.01, rho=0.9, epsilon=1e-8)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        symptom="smaller steps in Keras at small gradients",
        fix="keras_impl.optim.rmsprop, with epsilon outside the root",
        operations=("rmsprop",),
        inputs={"start": array(4, 3), "gradients": array(10, 4, 3, scale=1e-4)},
    ),
    Row(
        "optimizers.rmsprop_defaults",
        "the constants of RMSprop if none are given",
        "optimizers",
        "other default",
        keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.RMSprop()
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.RMSprop([weights], lr=0.001, alpha=0.9)
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights""",
        naive_torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.RMSprop([weights])
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights""",
        symptom="ten times the learning rate, and an average over ten times the steps",
        fix="say both",
        operations=("rmsprop",),
        inputs={"start": array(4, 3), "gradients": array(10, 4, 3, scale=100.0)},
        note="the gradients are large here, so that epsilon does not count",
    ),
    Row(
        "optimizers.adagrad",
        "what Adagrad's sum of squares starts from",
        "optimizers",
        "other default",
        keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.Adagrad(0.01)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.Adagrad(
    [weights], lr=0.01, initial_accumulator_value=0.1 + 1e-7, eps=0.0
)
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights""",
        naive_torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.Adagrad([weights], lr=0.01)
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights""",
        symptom="far larger first steps in PyTorch: it starts from 0, Keras from 0.1",
        fix="initial_accumulator_value; Keras's epsilon goes there too",
        operations=("adagrad",),
        inputs=STEPS,
    ),
    Row(
        "optimizers.adagrad_of_torch",
        "PyTorch's Adagrad in Keras",
        "optimizers",
        "other default",
        keras="""\
from keras_impl.optim import adagrad

weights = keras.Variable(start)
optimizer = adagrad(0.01)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.Adagrad([weights], lr=0.01)
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights""",
        naive_keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.Adagrad(0.01)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        symptom="far smaller first steps in Keras",
        fix="keras_impl.optim.adagrad, which starts from 0",
        operations=("adagrad",),
        inputs=STEPS,
    ),
    Row(
        "optimizers.adadelta",
        "the constants of Adadelta if none are given",
        "optimizers",
        "other default",
        keras="""\
weights = keras.Variable(np.array(start))
optimizer = keras.optimizers.Adadelta()
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights - start""",
        torch="""\
weights = nn.Parameter(start.clone())
optimizer = torch.optim.Adadelta([weights], lr=0.001, rho=0.95, eps=1e-7)
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights - start""",
        naive_torch="""\
weights = nn.Parameter(start.clone())
optimizer = torch.optim.Adadelta([weights])
for gradient in gradients:
    weights.grad = gradient
    optimizer.step()
weights - start""",
        symptom="steps a thousand times larger in PyTorch",
        fix="say all three; the paper has no learning rate, which is PyTorch's 1.0",
        inputs=STEPS,
    ),
    Row(
        "optimizers.clip_by_value",
        "gradients cut at a value",
        "optimizers",
        "other name",
        keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.SGD(0.1, clipvalue=0.5)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights], lr=0.1)
for gradient in gradients:
    weights.grad = gradient
    nn.utils.clip_grad_value_([weights], 0.5)
    optimizer.step()
weights""",
        operations=("clip_by_value",),
        inputs=STEPS,
    ),
    Row(
        "optimizers.clip_by_norm",
        "which norm clipnorm means",
        "optimizers",
        "other meaning",
        keras="""\
kernel, bias = keras.Variable(kernel), keras.Variable(bias)
optimizer = keras.optimizers.SGD(0.1, clipnorm=1.0)
for gradient, bias_gradient in zip(gradients, bias_gradients):
    optimizer.apply([gradient, bias_gradient], [kernel, bias])
[kernel, bias]""",
        torch="""\
kernel, bias = nn.Parameter(kernel), nn.Parameter(bias)
optimizer = torch.optim.SGD([kernel, bias], lr=0.1)
for kernel.grad, bias.grad in zip(gradients, bias_gradients):
    for parameter in (kernel, bias):
        parameter.grad /= parameter.grad.norm().clamp(min=1.0)
    optimizer.step()
[kernel, bias]""",
        naive_torch="""\
kernel, bias = nn.Parameter(kernel), nn.Parameter(bias)
optimizer = torch.optim.SGD([kernel, bias], lr=0.1)
for kernel.grad, bias.grad in zip(gradients, bias_gradients):
    nn.utils.clip_grad_norm_([kernel, bias], 1.0)
    optimizer.step()
[kernel, bias]""",
        symptom="another direction of the step: clipnorm cuts every tensor by its own "
        "norm, clip_grad_norm_ all by that of all",
        fix="clip each gradient; or global_clipnorm in Keras",
        operations=("clip_by_norm",),
        inputs=TWO_TENSORS,
    ),
    Row(
        "optimizers.clip_by_global_norm",
        "gradients cut at the norm of all of them",
        "optimizers",
        "other meaning",
        keras="""\
kernel, bias = keras.Variable(kernel), keras.Variable(bias)
optimizer = keras.optimizers.SGD(0.1, global_clipnorm=1.0)
for gradient, bias_gradient in zip(gradients, bias_gradients):
    optimizer.apply([gradient, bias_gradient], [kernel, bias])
[kernel, bias]""",
        torch="""\
from torch_impl.optim import clip_by_global_norm

kernel, bias = nn.Parameter(kernel), nn.Parameter(bias)
optimizer = torch.optim.SGD([kernel, bias], lr=0.1)
for kernel.grad, bias.grad in zip(gradients, bias_gradients):
    clipped = clip_by_global_norm([kernel.grad, bias.grad], 1.0)
    kernel.grad, bias.grad = clipped
    optimizer.step()
[kernel, bias]""",
        naive_torch="""\
kernel, bias = nn.Parameter(kernel), nn.Parameter(bias)
optimizer = torch.optim.SGD([kernel, bias], lr=0.1)
for kernel.grad, bias.grad in zip(gradients, bias_gradients):
    nn.utils.clip_grad_norm_([kernel, bias], 1.0)
    optimizer.step()
[kernel, bias]""",
        symptom="seven digits agree, all of float32's: PyTorch adds a millionth to the "
        "norm",
        fix="divide by the norm itself, as torch_impl.optim.clip_by_global_norm does",
        operations=("clip_by_global_norm",),
        inputs=TWO_TENSORS,
        trap_dtypes=("float64",),
    ),
    Row(
        "optimizers.ema",
        "the moving average of the weights",
        "optimizers",
        "other default",
        keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
optimizer.finalize_variable_values([weights])
weights""",
        torch="""\
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

model = nn.ParameterList([start])
average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for gradient in gradients:
    model[0].grad = gradient
    optimizer.step()
    average.update_parameters(model)
average.module[0]""",
        naive_torch="""\
from torch.optim.swa_utils import AveragedModel

model = nn.ParameterList([start])
average = AveragedModel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for gradient in gradients:
    model[0].grad = gradient
    optimizer.step()
    average.update_parameters(model)
average.module[0]""",
        symptom="PyTorch's default is the plain mean of all steps",
        fix="multi_avg_fn=get_ema_multi_avg_fn(0.9), updated after each step",
        operations=("sgd",),
        inputs=STEPS,
        note="Keras's fit() puts the average into the model at its end; neither side "
        "averages the statistics of BatchNorm",
    ),
    Row(
        "optimizers.accumulation",
        "gradients of several batches in one step",
        "optimizers",
        "other meaning",
        keras="""\
weights = keras.Variable(start)
optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=5)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights], lr=0.1)
for batch, slopes in enumerate(gradients, 1):
    ((weights * slopes).sum() / 5).backward()
    if batch % 5 == 0:
        optimizer.step()
        optimizer.zero_grad()
weights""",
        naive_torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights], lr=0.1)
for batch, slopes in enumerate(gradients, 1):
    (weights * slopes).sum().backward()
    if batch % 5 == 0:
        optimizer.step()
        optimizer.zero_grad()
weights""",
        symptom="a learning rate as many times too large: backward() adds, Keras takes "
        "the mean",
        fix="divide the loss by the number of batches",
        operations=("sgd",),
        inputs=STEPS,
    ),
    Row(
        "optimizers.accumulation_schedule",
        "a schedule under gradient accumulation",
        "optimizers",
        "other meaning",
        keras="""\
weights = keras.Variable(start)
decay = keras.optimizers.schedules.ExponentialDecay(
    np.float64(0.1), decay_steps=5, decay_rate=0.5, staircase=True
)
optimizer = keras.optimizers.SGD(decay, gradient_accumulation_steps=5)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights], lr=0.1)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
for batch, slopes in enumerate(gradients, 1):
    ((weights * slopes).sum() / 5).backward()
    if batch % 5 == 0:
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
weights""",
        naive_keras="""\
weights = keras.Variable(start)
decay = keras.optimizers.schedules.ExponentialDecay(
    np.float64(0.1), decay_steps=1, decay_rate=0.5
)
optimizer = keras.optimizers.SGD(decay, gradient_accumulation_steps=5)
for gradient in gradients:
    optimizer.apply([gradient], [weights])
weights""",
        symptom="the schedule runs as many times too fast: Keras counts batches, not "
        "steps (Adam's bias correction counts steps)",
        fix="give the schedule's lengths in batches",
        operations=("sgd", "exponential_decay"),
        inputs=STEPS,
    ),
    Row(
        "optimizers.frozen_momentum",
        "weights that are frozen in the middle of training",
        "optimizers",
        "other meaning",
        keras="""\
body, head = keras.Variable(np.array(start)), keras.Variable(np.array(start))
optimizer = keras.optimizers.SGD(0.1, momentum=np.float64(0.9))
optimizer.apply([gradients[0], gradients[0]], [body, head])
for gradient in gradients[1:]:
    optimizer.apply([gradient], [head])
[body, head]""",
        torch="""\
body, head = nn.Parameter(start.clone()), nn.Parameter(start.clone())
optimizer = torch.optim.SGD([body, head], lr=0.1, momentum=0.9)
((body + head) * gradients[0]).sum().backward()
optimizer.step()
body.requires_grad_(False)
for slopes in gradients[1:]:
    optimizer.zero_grad()
    (head * slopes).sum().backward()
    optimizer.step()
[body, head]""",
        naive_torch="""\
body, head = nn.Parameter(start.clone()), nn.Parameter(start.clone())
optimizer = torch.optim.SGD([body, head], lr=0.1, momentum=0.9)
((body + head) * gradients[0]).sum().backward()
optimizer.step()
body.requires_grad_(False)
for slopes in gradients[1:]:
    optimizer.zero_grad(set_to_none=False)
    (head * slopes).sum().backward()
    optimizer.step()
[body, head]""",
        symptom="frozen weights coast on and decay: a gradient of zeros is a gradient",
        fix="zero_grad() as it is by default, or leave them out of the optimizer",
        operations=("momentum",),
        inputs=STEPS,
    ),
    Row(
        "optimizers.frozen_after_compile",
        "trainable = False in the middle of training",
        "optimizers",
        "other meaning",
        keras="""\
body, head = layers.Dense(3, use_bias=False), layers.Dense(1, use_bias=False)
model = keras.Sequential([layers.Input((4,)), body, head])
body.kernel.assign(np.full((4, 3), 0.5))
head.kernel.assign(np.ones((3, 1)))
model.compile(keras.optimizers.SGD(0.01), loss="mse")
features, targets = np.array(features), np.array(targets)
model.train_on_batch(features, targets)
body.trainable = False
model.compile(keras.optimizers.SGD(0.01), loss="mse")
model.train_on_batch(features, targets)
[keras.ops.ravel(body.kernel), keras.ops.ravel(head.kernel)]""",
        torch="""\
body, head = nn.Linear(4, 3, bias=False), nn.Linear(3, 1, bias=False)
model = nn.Sequential(body, head)
nn.init.constant_(body.weight, 0.5)
nn.init.ones_(head.weight)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range(2):
    optimizer.zero_grad()
    F.mse_loss(model(features), targets).backward()
    optimizer.step()
    body.requires_grad_(False)
[body.weight.T.flatten(), head.weight.flatten()]""",
        naive_keras="""\
body, head = layers.Dense(3, use_bias=False), layers.Dense(1, use_bias=False)
model = keras.Sequential([layers.Input((4,)), body, head])
body.kernel.assign(np.full((4, 3), 0.5))
head.kernel.assign(np.ones((3, 1)))
model.compile(keras.optimizers.SGD(0.01), loss="mse")
features, targets = np.array(features), np.array(targets)
model.train_on_batch(features, targets)
body.trainable = False
model.train_on_batch(features, targets)
[keras.ops.ravel(body.kernel), keras.ops.ravel(head.kernel)]""",
        symptom="Keras trains the frozen layer on: the step was traced before; "
        "PyTorch's requires_grad_(False) counts at once",
        fix="compile() again",
        operations=("sgd",),
        inputs={"features": array(6, 4), "targets": array(6, 1)},
        dtypes=("float32",),
        note="on TensorFlow the old optimizer may be kept, with its state; JAX refuses "
        "it, since it was made for all of the weights",
    ),
)
