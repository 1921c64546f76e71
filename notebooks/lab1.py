# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 1: is deeper better?
#
# You will train networks, make them deeper, and find out whether that helped. Three habits matter more here than any
# architecture:
#
# 1. **Predict first.** Before each study there is a question. Write your answer down, then run the cell.
# 2. **One run is an anecdote.** A study repeats every network with several seeds and tests what was named beforehand.
# 3. **Undecided is an answer.** It says about how many seeds would decide it.
#
# No conclusion below is typed by hand. Each is computed from the runs on your disk, so it may differ from your
# neighbour's, and it changes when your runs do.
#
# The small version uses 5,000 digits that come with the package and takes about three minutes on two cores. The full
# one uses MNIST and CIFAR-10 (JPEG) and takes an hour and a half: fetch them with `netdepth data fetch`, and start
# Jupyter with `NETDEPTH_LAB=full`; with `NETDEPTH_LAB=all` deep convolutional networks come in, which take two hours
# more. What is done already is not done again: you can stop at any time and run all cells anew.

# %%
import io
import os

import pandas as pd
from IPython.display import Image, Markdown, display
from PIL import Image as Picture

import netdepth as nd
from netdepth.runs.compare import compare
from netdepth.tools.inspect.statistics import read_statistics, words

LAB = os.environ.get("NETDEPTH_LAB", "small")
if LAB not in ("small", "full", "all"):
    raise SystemExit(f"NETDEPTH_LAB is {LAB!r}; it takes small, full or all")
FULL = LAB != "small"

# Your own seeds: if you are number 7 on the class list, set this to 700. Then your runs are yours alone.
FIRST_SEED = int(os.environ.get("NETDEPTH_FIRST_SEED", "0"))

DIGITS = "mnist" if FULL else "mnist5k"


def seeds(count):
    """Your seeds, one after another."""
    return range(FIRST_SEED, FIRST_SEED + count)


def ask(recipe, count, **changes):
    """Make the runs of a study that are missing, and its report; a finished study returns at once."""
    study = nd.study(recipe, seeds=seeds(count), **changes)
    study.report()
    return study


def conclude(study):
    """What the study's runs say: its answer in short, then every sentence of the verdict."""
    said = [f"- {sentence.text}" for sentence in study.verdict().sentences]
    display(Markdown("\n".join([f"**{study.spec.question}**", "", f"> {study.answer()}", "", *said])))


def show(path, width=760):
    """A picture, made small enough to keep in a notebook."""
    with Picture.open(path) as picture:
        scale = min(1, 1.5 * width / picture.width)
        size = round(scale * picture.width), round(scale * picture.height)
        small = picture.convert("RGB").resize(size, Picture.Resampling.LANCZOS)
        file = io.BytesIO()
        small.quantize(256, Picture.Quantize.MAXCOVERAGE, dither=Picture.Dither.NONE).save(file, "png", optimize=True)
    display(Image(file.getvalue(), width=min(width, small.width)))


# %% [markdown]
# ## 1.1 A baseline, and what one run tells
#
# The network is small: 784 pixels, hidden layers of 256 and 128 units, ten outputs, trained with Adam. Training stops
# when the validation loss has not improved for five epochs, and the weights of the best epoch are kept. The test images
# are opened once, at the end.
#
# *Before you run it:* sketch four curves, loss and accuracy on training and on validation images. Where do they part?
# Which of the two validation curves turns first?

# %%
run = nd.train("baseline-mlp", dataset=DIGITS, seed=FIRST_SEED)
show(run.figure, width=480)

# %%
result = run.result
rows = {
    f"{part}, {weights} weights": {name: result[part][weights][name] for name in ("loss", "accuracy")}
    for part in ("train", "val", "test")
    for weights in ("best", "last")
}
display(pd.DataFrame(rows).T.round(4))

onset = result["overfit_onset_epoch"]
display(
    Markdown(
        f"The best weights are those of epoch {result['best_epoch']:g}. "
        + (f"Overfitting began after epoch {onset:g}. " if onset is not None else "No overfitting was flagged. ")
        + f"The best weights are right on {100 * result['train']['best']['accuracy']:.1f} % of the training images "
        f"and on {100 * result['test']['best']['accuracy']:.1f} % of the test images."
    )
)

# %% [markdown]
# **Overfitting** is a statement about two curves: the validation loss stays above its best while the training loss
# still falls. Find the place in the figure.
#
# - The training accuracy hardly says anything about new images. Which number in the table does, and why may you look at
#   it only once?
# - Best and last weights differ in loss more than in accuracy. What does a network do to its *confidence* while it
#   overfits?
#
# Now the same network with five seeds. Nothing differs but the initial weights and the order of the images. *Predict:*
# by how much will the test accuracies differ?

# %%
runs = nd.train("baseline-mlp", dataset=DIGITS, seeds=seeds(5))
(group,) = compare(each.dir for each in runs).groups
by_seed = {f"seed {row.seed}": row.scores["test_best_accuracy"] for row in group.rows}
accuracies = pd.Series(by_seed, name="test accuracy")
display(accuracies.to_frame().round(4))

mean = group.estimates["test_accuracy"]
display(
    Markdown(
        f"The mean of {mean.n} runs is {100 * mean.value:.2f} %, with a 95 % interval from {100 * mean.low:.2f} to "
        f"{100 * mean.high:.2f} %. A single one of them gave anything from {100 * accuracies.min():.2f} to "
        f"{100 * accuracies.max():.2f} %: {100 * (accuracies.max() - accuracies.min()):.2f} points apart by luck alone."
    )
)

# %% [markdown]
# - Somebody claims an improvement of half that distance from one run each. What do you ask?
# - Why is it wrong to report the best of five?
#
# ## 1.2 Depth in fully connected networks
#
# The same width, ever more layers, in five ways. A *plain* layer computes $h \leftarrow \mathrm{ReLU}(Wh + b)$; its
# *residual* twin $h \leftarrow h + s\,\mathrm{ReLU}(Wh + b)$ has the same weights, the same parameters and a way
# around.
#
# | Condition | Shortcut | Initial weights | Branch |
# | --- | --- | --- | --- |
# | plain default | none | PyTorch's, small | |
# | plain he | none | He's: ReLU keeps the size of the signal | |
# | residual default | identity | PyTorch's | $s = 1$ |
# | residual he | identity | He's | $s = 1$ |
# | residual he scaled | identity | He's | $s = \text{blocks}^{-1/2}$ |
#
# Deep networks fail in different ways, and each has its own cure:
#
# - **vanished**: at chance, because hardly any gradient reaches the first layers;
# - **exploded**: the loss is far above that of guessing, because the signal grows from layer to layer;
# - **degraded**: it trains, but ends with a *higher training loss* than a shallow network. That is not overfitting.
#
# *Before you run it:* what will become of each at the greatest depth? Replace the question marks by `vanished`,
# `exploded`, `degraded`, `helps` or `equivalent` (no difference that matters). With a variance of weights times fan-in
# of 1/3 (PyTorch's) or 2 (He's) you can calculate most of it: by what factor does the signal change per layer?

# %%
PREDICTED = {
    "plain default": "?",
    "plain he": "?",
    "residual he": "?",
    "residual he scaled": "?",
    "residual default": "?",
}

# %%
SMALLER = {} if FULL else {
    "dataset": DIGITS,
    "depths": (2, 8, 40),
    "overrides": ("train.budget=5ep", "train.batch_size=32", "optimizer.lr=5e-4"),
}  # fmt: skip
depth = ask("depth-mlp", 10 if FULL else 8, **SMALLER)
show(depth.path / "figures" / "against-depth.png")

# %%
conclude(depth)

# %%
verdict, deepest = depth.verdict(), depth.spec.levels[-1]
found = [item for item in verdict.cells if item.cell.level == deepest]
rows = [(i.cell.condition, PREDICTED[i.cell.condition], i.label, i.cause or "", i.cell.loss.value) for i in found]
columns = ("condition", "you predicted", "found", "consistent with", "training loss (nats)")
display(pd.DataFrame(rows, columns=columns).set_index("condition").round(3).style.set_caption(f"depth {deepest}"))

# %% [markdown]
# The verdict rests on the *training* loss of the last weights. Why would the test error be the wrong judge of whether a
# network can be *trained*?
#
# ### What the gradients say before any training
#
# Each column is a network, its first layer at the bottom. Blue: the layer receives a far smaller gradient than the last
# one; orange: a far larger one. *Predict* which columns of which condition are coloured, then look.

# %%
show(depth.path / "figures" / "gradient-flow.png")

# %% [markdown]
# And in words, of the deepest network of three conditions, from the measurements taken while it trained:

# %%
for condition in ("plain default", "plain he", "residual he"):
    deep = depth.run(condition, deepest)
    display(Markdown(f"**{condition}, depth {deepest}.** {words(read_statistics(deep.dir), deep.dir.status())}"))

# %% [markdown]
# - Degradation is the puzzling one. The deep plain network with He's weights could copy the shallow one and let the
#   other layers pass their input on. Why does it not find that solution?
# - Which of the failures does the shortcut cure, and which does it bring about? What does the factor $s$ do?
#
# ### The loss around the solution
#
# Two random directions, scaled filter by filter so that networks can be compared (Li et al. 2018), and the training
# loss on the plane they span. *Predict:* whose surface is smoother, that of the plain or of the residual network?

# %%
GRID = {} if FULL else {"grid": 15, "images": 300}
twins = [depth.run(condition, deepest) for condition in ("plain he", "residual he scaled")]
surface = nd.landscape(*twins, **GRID)
show(surface.figure)
display(Markdown(surface.words))

# %% [markdown]
# A slice shows two directions out of many thousands, of one run each. What may you conclude from it, and what not?
#
# ## 1.3 Convolutional networks
#
# Two networks of eight layers with nearly the same number of parameters. The *simple* one has convolutions, pooling, a
# hidden layer and dropout. The *residual* one has batch norm, shortcuts, and the mean over each feature map in place of
# the hidden layer.
#
# *Predict:* which fits its training images better in the same number of steps? Will the validation error agree?

# %%
cnn = ask("cnn-small" if FULL else "cnn-mnist5k", 7)
sizes = cnn.table().groupby("condition")["num_params"].first()
display(Markdown(", ".join(f"{name}: {size:,} parameters" for name, size in sizes.items())))
show(cnn.path / "figures" / "learning-curves.png")
conclude(cnn)

# %% [markdown]
# - These two differ in several things at once. Which further study would say *which* of them makes the difference?
# - Seven pairs of runs can reach p = 2/128 at best. Why not smaller? What would you have had to plan for a p below
#   0.01?
#
# ### Does depth help here?
#
# Plain and residual networks of 8, 20 and 56 layers that differ in the shortcut alone. This study takes two hours by
# itself, so only `NETDEPTH_LAB=all` makes it. What it found elsewhere stands in `docs/findings.md`.

# %%
if LAB == "all":
    deep_cnn = ask("depth-cnn", 7)
    show(deep_cnn.path / "figures" / "against-depth.png")
    conclude(deep_cnn)
else:
    display(Markdown("Not asked here. To ask it: `netdepth study depth-cnn`."))

# %% [markdown]
# ## 2.1 Transfer
#
# A network was trained on some classes. Is what it learned of use for *other* classes? Two ways to find out:
#
# - **Probe**: leave the network as it is, take what its last hidden layer says of an image, and fit a simple classifier
#   to that. The same classifier on raw pixels is what it has to beat.
# - **Fine-tune**: start from its weights and train on, only the head, the last layers or everything.
#
# *Predict the order* of four ways to learn the new classes in a few epochs: from scratch, head only, last stage, all
# stages.

# %%
transfer = ask("transfer-cifar10-halves" if FULL else "transfer-mnist5k", 8)
conclude(transfer)

# %%
target = transfer.spec.base.dataset
source = nd.load(transfer.parent_run.run)
probe = nd.probe(source, dataset=target, images=1000)
show(probe.figure, width=560)
display(Markdown("\n".join(f"- {sentence}" for sentence in probe.sentences)))

# %% [markdown]
# - k and C were chosen on validation images, and the test images were opened once. What would have gone wrong
#   otherwise?
# - When does it pay to freeze layers? Think of the number of images, and of how alike the two tasks are.
#
# ## 2.2 Distillation
#
# A large network, the teacher, does not only say "7". It says "7, a little like a 1, not at all like a 0". A small
# network, the student, learns from these softened answers beside the labels (Hinton, Vinyals & Dean 2015).
#
# *Predict:* does the student gain, and by more or less than what five seeds of the baseline lay apart?

# %%
distillation = ask("distill-mnist" if FULL else "distill-mnist5k", 10)
teacher = distillation.parent_run
students = int(distillation.table()["num_params"].iloc[0])
display(
    Markdown(
        f"The student has {students:,} parameters, {100 * students / teacher.num_params:.0f} % of its teacher's. "
        f"The teacher's validation error is {100 * teacher.val_error:.2f} %."
    )
)
conclude(distillation)

# %% [markdown]
# - The softened answers are divided by a temperature, and their part of the loss is multiplied by its square. Why that?
# - The teacher saw the same images as the student. Where does the additional information come from?
#
# ## 2.3 Where does it look?
#
# A network that ends in a mean over its feature maps can be asked where the evidence for its answer lies: weight each
# map as the head does, and add them up (Zhou et al. 2016). A map is only worth something if covering the marked places
# hurts more than covering random ones. So that is tested too.
#
# *Predict:* in wrong answers, does the network look at the wrong place, or at the right place with the wrong
# conclusion?

# %%
explained = nd.explain(cnn.run("residual", 8), count=200 if FULL else 60)
show(explained.figures["sheet"])

# %%
show(explained.figures["check"], width=560)
display(Markdown(explained.words))

# %% [markdown]
# - Name one thing such a map can show, and one that it cannot.
#
# ## What you found

# %%
studies = [depth, cnn, *([deep_cnn] if LAB == "all" else []), transfer, distillation]
rows = [f"| {study.spec.question} | {study.answer()} | {len(study.table())} |" for study in studies]
display(Markdown("\n".join(["| Question | Answer | Runs |", "| --- | --- | --- |", *rows])))

# %% [markdown]
# Go back to your predictions. For each one that failed: what did you believe that is not so?
#
# Every number above lies in a run folder, and `netdepth report STUDY --check` holds each report against them. What to
# hand in, your instructor will say: most often the folder of one study.
