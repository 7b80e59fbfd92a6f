"""Schedules: the learning rate that each step is made with."""

from parity.rows.record import Row, given

# Falls, then stays: a plateau from the third epoch on.
LOSSES = {"losses": given([1.0, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8])}
# Falls by more than a ten-thousandth of itself, and by less than one of 1.
SMALL_LOSSES = {"losses": given([0.01, 0.00999, 0.00998, 0.00997, 0.00996, 0.00995])}

ROWS = (
    Row(
        "schedules.float32",
        "the digits of a schedule in a float64 run",
        "schedules",
        "other meaning",
        keras="""\
decay = keras.optimizers.schedules.ExponentialDecay(
    np.float64(0.1), decay_steps=10, decay_rate=np.float64(0.7), staircase=True
)
[decay(step) for step in range(40)]""",
        torch="""\
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.7)
rates = []
for _ in range(40):
    rates += scheduler.get_last_lr()
    optimizer.step()
    scheduler.step()
rates""",
        naive_keras="""\
decay = keras.optimizers.schedules.ExponentialDecay(
    0.1, decay_steps=10, decay_rate=0.7, staircase=True
)
[decay(step) for step in range(40)]""",
        symptom="seven digits agree and no more: on TensorFlow, Keras makes float32 of "
        "Python's numbers, whatever the type of the weights is",
        fix="np.float64(0.1), which keeps its digits, for the rates and factors",
        operations=("step_decay",),
        dtypes=("float64",),
    ),
    Row(
        "schedules.step_decay",
        "a rate that falls in steps",
        "schedules",
        "other meaning",
        keras="""\
decay = keras.optimizers.schedules.ExponentialDecay(
    np.float64(0.1), decay_steps=10, decay_rate=0.5, staircase=True
)
[decay(step) for step in range(40)]""",
        torch="""\
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.5)
rates = []
for epoch in range(8):
    for batch in range(5):
        rates += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
rates""",
        naive_torch="""\
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.5)
rates = []
for epoch in range(8):
    for batch in range(5):
        rates += scheduler.get_last_lr()
        optimizer.step()
    scheduler.step()
rates""",
        symptom="decays later by the number of batches in an epoch: Keras counts "
        "steps, PyTorch the calls of scheduler.step()",
        fix="scheduler.step() after every optimizer.step()",
        operations=("step_decay",),
    ),
    Row(
        "schedules.step_order",
        "scheduler.step() before optimizer.step()",
        "schedules",
        "other meaning",
        keras="""\
decay = keras.optimizers.schedules.ExponentialDecay(
    np.float64(0.1), decay_steps=10, decay_rate=0.5, staircase=True
)
[decay(step) for step in range(40)]""",
        torch="""\
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.5)
rates = []
for _ in range(40):
    rates += scheduler.get_last_lr()
    optimizer.step()
    scheduler.step()
rates""",
        naive_torch="""\
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.5)
rates = []
for _ in range(40):
    scheduler.step()
    rates += scheduler.get_last_lr()
    optimizer.step()
rates""",
        symptom="every change comes one step early; PyTorch warns once",
        fix="optimizer.step() first: the schedulers count from 0, as Keras's do",
        operations=("step_decay",),
    ),
    Row(
        "schedules.piecewise",
        "rates between given steps",
        "schedules",
        "other meaning",
        keras="""\
rates = [np.float64(0.1), np.float64(0.01), np.float64(0.001)]
piecewise = keras.optimizers.schedules.PiecewiseConstantDecay([10, 20], rates)
[piecewise(step) for step in range(30)]""",
        torch="""\
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[11, 21])
rates = []
for _ in range(30):
    rates += scheduler.get_last_lr()
    optimizer.step()
    scheduler.step()
rates""",
        naive_torch="""\
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[10, 20])
rates = []
for _ in range(30):
    rates += scheduler.get_last_lr()
    optimizer.step()
    scheduler.step()
rates""",
        symptom="PyTorch changes one step earlier: Keras's boundary belongs to the "
        "rate before it, a milestone to the one after it",
        fix="milestones = boundaries + 1",
        operations=("step_decay",),
    ),
    Row(
        "schedules.exponential_decay",
        "a rate that falls by a factor in so many steps",
        "schedules",
        "other meaning",
        keras="""\
decay = keras.optimizers.schedules.ExponentialDecay(
    np.float64(0.1), decay_steps=10, decay_rate=np.float64(0.9)
)
[decay(step) for step in range(40)]""",
        torch="""\
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9 ** (1 / 10))
rates = []
for _ in range(40):
    rates += scheduler.get_last_lr()
    optimizer.step()
    scheduler.step()
rates""",
        naive_torch="""\
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9)
rates = []
for _ in range(40):
    rates += scheduler.get_last_lr()
    optimizer.step()
    scheduler.step()
rates""",
        symptom="decays too fast: PyTorch's factor is that of one step",
        fix="gamma = decay_rate ** (1 / decay_steps)",
        operations=("exponential_decay",),
    ),
    Row(
        "schedules.polynomial_decay",
        "a rate that falls in a line",
        "schedules",
        "other default",
        keras="""\
decay = keras.optimizers.schedules.PolynomialDecay(
    np.float64(0.1), decay_steps=30, end_learning_rate=0.0
)
[decay(step) for step in range(40)]""",
        torch="""\
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=30)
rates = []
for _ in range(40):
    rates += scheduler.get_last_lr()
    optimizer.step()
    scheduler.step()
rates""",
        naive_keras="""\
decay = keras.optimizers.schedules.PolynomialDecay(np.float64(0.1), decay_steps=30)
[decay(step) for step in range(40)]""",
        symptom="Keras stops at 0.0001, PyTorch at 0",
        fix="end_learning_rate=0.0; say the steps too, PyTorch's default is 5",
    ),
    Row(
        "schedules.cosine_decay",
        "a rate that falls along a cosine",
        "schedules",
        "other meaning",
        keras="""\
decay = keras.optimizers.schedules.CosineDecay(np.float64(0.5), 30, alpha=0.1)
[decay(step) for step in range(31)]""",
        torch="""\
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
    optimizer, T_max=30, eta_min=0.1 * 0.5
)
rates = []
for _ in range(31):
    rates += scheduler.get_last_lr()
    optimizer.step()
    scheduler.step()
rates""",
        naive_torch="""\
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
    optimizer, T_max=30, eta_min=0.1
)
rates = []
for _ in range(31):
    rates += scheduler.get_last_lr()
    optimizer.step()
    scheduler.step()
rates""",
        symptom="ends at another rate: alpha is a fraction of the first one, eta_min a "
        "rate",
        fix="eta_min = alpha * lr",
        operations=("cosine_decay",),
    ),
    Row(
        "schedules.cosine_end",
        "training on after the end of a cosine",
        "schedules",
        "other meaning",
        keras="""\
decay = keras.optimizers.schedules.CosineDecay(np.float64(0.1), 30)
[decay(step) for step in range(60)]""",
        torch="""\
import math

optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
scheduler = torch.optim.lr_scheduler.LambdaLR(
    optimizer, lambda step: (1 + math.cos(math.pi * min(step, 30) / 30)) / 2
)
rates = []
for _ in range(60):
    rates += scheduler.get_last_lr()
    optimizer.step()
    scheduler.step()
rates""",
        naive_torch="""\
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)
rates = []
for _ in range(60):
    rates += scheduler.get_last_lr()
    optimizer.step()
    scheduler.step()
rates""",
        symptom="Keras stays at the last rate, PyTorch climbs back to the first",
        fix="stop scheduler.step() there; or LambdaLR",
        operations=("cosine_decay",),
    ),
    Row(
        "schedules.cosine_restarts",
        "a cosine that starts again",
        "schedules",
        "other default",
        keras="""\
restarts = keras.optimizers.schedules.CosineDecayRestarts(np.float64(0.1), 10)
[restarts(step) for step in range(40)]""",
        torch="""\
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
    optimizer, T_0=10, T_mult=2
)
rates = []
for _ in range(40):
    rates += scheduler.get_last_lr()
    optimizer.step()
    scheduler.step()
rates""",
        naive_torch="""\
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=10)
rates = []
for _ in range(40):
    rates += scheduler.get_last_lr()
    optimizer.step()
    scheduler.step()
rates""",
        symptom="by default every period of Keras is twice as long as the one before; "
        "PyTorch's are all alike",
        fix="T_mult=2, or t_mul=1.0 in Keras",
        operations=("cosine_decay",),
    ),
    Row(
        "schedules.warm_up",
        "a rate that first rises",
        "schedules",
        "other default",
        keras="""\
decay = keras.optimizers.schedules.CosineDecay(
    np.float64(0.0), 20, warmup_target=np.float64(0.1), warmup_steps=10
)
[decay(step) for step in range(31)]""",
        torch="""\
import math

def factor(step):
    if step < 10:
        return step / 10
    return (1 + math.cos(math.pi * (min(step, 30) - 10) / 20)) / 2

optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
rates = []
for _ in range(31):
    rates += scheduler.get_last_lr()
    optimizer.step()
    scheduler.step()
rates""",
        naive_torch="""\
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
parts = [LinearLR(optimizer, total_iters=10), CosineAnnealingLR(optimizer, T_max=20)]
scheduler = SequentialLR(optimizer, parts, milestones=[10])
rates = []
for _ in range(31):
    rates += scheduler.get_last_lr()
    optimizer.step()
    scheduler.step()
rates""",
        symptom="PyTorch starts from a third of the rate, Keras from 0: its first step "
        "moves nothing",
        fix="LambdaLR, since LinearLR refuses to start from 0",
        operations=("warm_up", "cosine_decay"),
    ),
    Row(
        "schedules.plateau",
        "how long a plateau is",
        "schedules",
        "other meaning",
        keras="""\
model = keras.Sequential([layers.Input((1,)), layers.Dense(1)])
model.compile(keras.optimizers.SGD(0.1))
plateau = keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=3)
plateau.set_model(model)
plateau.on_train_begin()
rates = []
for epoch, loss in enumerate(losses):
    plateau.on_epoch_end(epoch, {"val_loss": float(loss)})
    rates.append(float(model.optimizer.learning_rate))
rates""",
        torch="""\
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
    optimizer, factor=0.5, patience=2, threshold_mode="abs"
)
rates = []
for loss in losses:
    plateau.step(loss)
    rates += plateau.get_last_lr()
rates""",
        naive_torch="""\
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
    optimizer, factor=0.5, patience=3, threshold_mode="abs"
)
rates = []
for loss in losses:
    plateau.step(loss)
    rates += plateau.get_last_lr()
rates""",
        symptom="PyTorch waits one epoch more: it counts the bad epochs that it bears, "
        "Keras those after which it acts",
        fix="one less as patience",
        operations=("plateau",),
        inputs=LOSSES,
    ),
    Row(
        "schedules.plateau_threshold",
        "what counts as better on a plateau",
        "schedules",
        "other default",
        keras="""\
model = keras.Sequential([layers.Input((1,)), layers.Dense(1)])
model.compile(keras.optimizers.SGD(0.1))
plateau = keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=3)
plateau.set_model(model)
plateau.on_train_begin()
rates = []
for epoch, loss in enumerate(losses):
    plateau.on_epoch_end(epoch, {"val_loss": float(loss)})
    rates.append(float(model.optimizer.learning_rate))
rates""",
        torch="""\
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
    optimizer, factor=0.5, patience=2, threshold_mode="abs"
)
rates = []
for loss in losses:
    plateau.step(loss)
    rates += plateau.get_last_lr()
rates""",
        naive_torch="""\
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
    optimizer, factor=0.5, patience=2
)
rates = []
for loss in losses:
    plateau.step(loss)
    rates += plateau.get_last_lr()
rates""",
        symptom="at small losses Keras sees a plateau where PyTorch sees progress: "
        "both want a ten-thousandth, Keras of 1, PyTorch of the best loss",
        fix="threshold_mode='abs'",
        operations=("plateau",),
        inputs=SMALL_LOSSES,
    ),
    Row(
        "schedules.callback",
        "a rate made from the last one, once per epoch",
        "schedules",
        "other meaning",
        keras="""\
model = keras.Sequential([layers.Input((1,)), layers.Dense(1)])
model.compile(keras.optimizers.SGD(0.1))
callback = keras.callbacks.LearningRateScheduler(
    lambda epoch, rate: rate * 0.9 if epoch else rate
)
callback.set_model(model)
rates = []
for epoch in range(10):
    callback.on_epoch_begin(epoch)
    rates.append(float(model.optimizer.learning_rate))
rates""",
        torch="""\
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
scheduler = torch.optim.lr_scheduler.MultiplicativeLR(optimizer, lambda epoch: 0.9)
rates = []
for epoch in range(10):
    rates += scheduler.get_last_lr()
    optimizer.step()
    scheduler.step()
rates""",
        naive_keras="""\
model = keras.Sequential([layers.Input((1,)), layers.Dense(1)])
model.compile(keras.optimizers.SGD(0.1))
callback = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9)
callback.set_model(model)
rates = []
for epoch in range(10):
    callback.on_epoch_begin(epoch)
    rates.append(float(model.optimizer.learning_rate))
rates""",
        symptom="Keras asks before the first epoch too, so that it is a factor ahead",
        fix="leave the rate as it is in epoch 0",
        operations=("exponential_decay",),
    ),
)
