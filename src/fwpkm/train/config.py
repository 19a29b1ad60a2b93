"""What defines a training run besides its model and its data."""

from dataclasses import dataclass, field
from typing import Literal

from fwpkm.layers.checks import below_one, not_positive, refuse
from fwpkm.nested import unknown_name

Precision = Literal["float32", "bfloat16"]
Carry = Literal["sequence", "document"]
Horizon = Literal["steps", "minutes"]
Parallel = Literal["replicate", "shard"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW (arXiv:1711.05101); tables with sparse gradients get SparseAdam, which has no decay."""

    lr: float = 1e-3
    """Highest step size."""
    beta1: float = 0.9
    """Decay of the gradients' mean."""
    beta2: float = 0.95
    """Decay of the gradients' mean square."""
    eps: float = 1e-8
    """Added to the root of the mean square."""
    weight_decay: float = 0.1
    """Decay of matrices. Norms, biases, temperatures, tables and sub-keys have none."""
    decay_embeddings: bool = False
    """Whether the embedding of tokens and an untied head decay too."""
    table_lr_factor: float = 1.0
    """Factor on the step size of trained tables and sub-keys."""
    clip_norm: float | None = 1.0
    """Largest norm of all gradients together; None does not clip."""

    def __post_init__(self) -> None:
        problems = not_positive(self, "lr", "eps", "table_lr_factor", "clip_norm")
        problems += [
            f"{name} must be in [0, 1), got {name}={value}"
            for name in ("beta1", "beta2")
            if not 0 <= (value := getattr(self, name)) < 1
        ]
        if self.weight_decay < 0:
            problems.append(f"weight_decay must be at least 0, got weight_decay={self.weight_decay}")
        refuse("OptimizerConfig", problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig:
    """The step size: a straight line up, then half a cosine down."""

    warmup: float = 0.05
    """Share of the run in which the step size rises to its height."""
    final: float = 0.1
    """Where the cosine ends, as a share of the height."""
    horizon: Horizon = "steps"
    """What the share of the run is a share of: its steps, or `TrainConfig.max_minutes`. Runs by the clock do
    not repeat exactly."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be in [0, 1], got {name}={value}"
            for name in ("warmup", "final")
            if not 0 <= (value := getattr(self, name)) <= 1
        ]
        if self.horizon not in ("steps", "minutes"):
            problems.append(f"horizon: {unknown_name('value', self.horizon, ('steps', 'minutes'))}")
        refuse("ScheduleConfig", problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """When the run is written down, and how much of it is kept."""

    every_steps: int | None = None
    """Steps between checkpoints; None leaves it to `every_minutes`."""
    every_minutes: float | None = 10.0
    """Minutes between checkpoints; None leaves it to `every_steps`. The run's end always writes one."""
    keep: int = 2
    """How many of the newest checkpoints stay."""

    def __post_init__(self) -> None:
        problems = below_one(self, "every_steps", "keep") + not_positive(self, "every_minutes")
        refuse("CheckpointConfig", problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignmentConfig:
    """An auxiliary loss that teaches memories their addresses: where a text repeats itself, queries shall meet.

    A token that stands after the same `context` tokens as an earlier one, and before the same next one, picks this
    one out among all earlier tokens by its query (InfoNCE). Ours: the paper trains addresses by the language model's
    loss alone.
    """

    cost: float = 0.0
    """What it weighs beside the objective, per such token; 0 leaves it out."""
    context: int = 16
    """Tokens, itself counted, that must be the same. They should reach back to what tells two facts apart."""
    answer_run: int = 0
    """Targets that weigh more than 1, such as answers of recall tasks, and stand in so many in a row that came earlier
    too, repeat these, whatever the question says; 0 does without: enough where questions repeat the facts' words."""
    across: bool = False
    """Whether it must be told from tokens of a part's other sequences too: finer addresses, where a text holds few
    facts. The parts of a step (`accumulate`, processes) then no longer add up to the same objective."""
    temperature: float = 0.07
    """Divides cosines."""

    def __post_init__(self) -> None:
        problems = below_one(self, "context") + not_positive(self, "temperature")
        if self.answer_run < 0:
            problems.append(f"answer_run must be at least 0, got answer_run={self.answer_run}")
        if self.cost < 0:
            problems.append(f"cost must be at least 0, got cost={self.cost}")
        refuse("AlignmentConfig", problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardConfig:
    """What counts as trouble."""

    max_skipped: int = 10
    """Steps in a row that may be skipped for a non-finite loss or gradient before the run gives up."""
    min_slot_share: float = 0.05
    """A memory collapses if its busiest slots are so few: distinct slots read, as a share of the reads or of
    all slots, whichever is fewer."""
    gate_margin: float = 0.02
    """A gate is saturated if its mean comes so near 0 or 1."""

    def __post_init__(self) -> None:
        problems = below_one(self, "max_skipped")
        for name in ("min_slot_share", "gate_margin"):
            if not 0 <= (value := getattr(self, name)) < 0.5:
                problems.append(f"{name} must be in [0, 0.5), got {name}={value}")
        refuse("GuardConfig", problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One training run. The recipe's section [train], with the sections of its parts."""

    steps: int | None = None
    """Steps of the optimizer; None follows from `max_tokens`."""
    max_tokens: int | None = None
    """Tokens to train on, padding counted, rounded up to whole steps; None leaves it to `steps`."""
    max_minutes: float | None = None
    """Minutes of training, checkpoints and validation not counted, after which the run ends well."""
    seed: int = 0
    """Draws the slow weights and decides which steps narrow attention. The data has a seed of its own."""

    accumulate: int = 1
    """Parts that each process works its share of a step's sequences off in, one after the other."""
    gate_cost: float = 0.0
    """Nats that a token costs whose gates are all fully open. What a memory writes overwrites what it knew: a
    small price lets it leave out what helps nobody, which documents longer than the sequences need."""
    gate_cost_layers: tuple[int, ...] | None = None
    """Decoder layers whose memories pay `gate_cost`, counted from 0; None is all that have a gate."""
    precision: Precision = "float32"
    """bfloat16 runs matrix products under autocast; weights, tables and losses stay float32."""
    truncate: int | None = None
    """Tokens that gradients flow back through; None is the whole sequence. Memories flow on regardless."""
    carry: Carry = "sequence"
    """Whether memories are fresh for each sequence, or carried on to the next sequence of the same document."""
    gradient_checkpointing: bool = False
    """Keep only what goes in and out of each block, and compute the rest twice."""
    compile: bool = False
    """Have torch.compile make code of each block. The first step of a shape waits for it, a minute or several."""
    parallel: Parallel = "replicate"
    """Under torchrun: every process holds the whole decoder, or a share of each block (FSDP2)."""
    shard_tables: bool = False
    """Under torchrun: every process holds a share of the rows of all trained tables, with either `parallel`."""
    device: str = "auto"
    """A torch device, or "auto": a GPU if there is one."""
    deterministic: bool = False
    """Refuse operations that do not repeat bit for bit on a GPU; slower. CPUs always repeat."""

    log_every: int = 10
    """Steps between lines of progress."""
    trace_every: int | None = 200
    """Steps between looks at gates and slots, which cost a forward pass; None never looks."""
    validate_every: int | None = 500
    """Steps between validations; None validates at the end only."""
    validation_batches: int = 8
    """Batches of each validation; the same ones every time."""
    tensorboard: bool = False
    """Write TensorBoard event files too."""
    wandb_project: str | None = None
    """Send metrics to this Weights & Biases project too."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """[train.optimizer]"""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """[train.schedule]"""
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    """[train.checkpoints]"""
    guards: GuardConfig = field(default_factory=GuardConfig)
    """[train.guards]"""
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    """[train.alignment]"""

    def __post_init__(self) -> None:
        counts = (
            "steps",
            "max_tokens",
            "accumulate",
            "truncate",
            "log_every",
            "trace_every",
            "validate_every",
        )
        problems = below_one(self, *counts, "validation_batches")
        problems += not_positive(self, "max_minutes")
        if self.gate_cost < 0:
            problems.append(f"gate_cost must be at least 0, got gate_cost={self.gate_cost}")
        if self.gate_cost_layers == ():
            problems.append("gate_cost_layers must name a layer or be unset, got []")
        if self.gate_cost and self.gradient_checkpointing:
            problems.append("gate_cost cannot be had with gradient_checkpointing=true; give up one")
        if self.alignment.cost and self.gradient_checkpointing:
            problems.append("alignment.cost cannot be had with gradient_checkpointing=true; give up one")
        problems += self._compile_problems()
        for name, known in _CHOICES.items():
            if (value := getattr(self, name)) not in known:
                problems.append(f"{name}: {unknown_name('value', value, known)}")
        refuse("TrainConfig", problems + self._budget_problems())

    def _compile_problems(self) -> list[str]:
        """Return what compiled blocks do not give: hooks of a step's own, and weights that come and go."""
        wanted = {
            "gate_cost=0": self.gate_cost == 0,
            "alignment.cost=0": self.alignment.cost == 0,
            "parallel='replicate'": self.parallel == "replicate",
            "shard_tables=false": not self.shard_tables,
        }
        return [f"compile=true needs {name}" for name, given in wanted.items() if self.compile and not given]

    def _budget_problems(self) -> list[str]:
        by_clock = self.schedule.horizon == "minutes"
        if by_clock and self.max_minutes is None:
            return ["schedule.horizon='minutes' needs max_minutes"]
        if not by_clock and self.steps is None and self.max_tokens is None:
            return ["steps or max_tokens must be given, as the schedule counts steps"]
        return []

    @property
    def seconds_of_schedule(self) -> float | None:
        """What the schedule counts, if it goes by the clock."""
        by_clock = self.max_minutes is not None and self.schedule.horizon == "minutes"
        return 60 * self.max_minutes if by_clock and self.max_minutes is not None else None


_CHOICES = {
    "precision": ("float32", "bfloat16"),
    "carry": ("sequence", "document"),
    "parallel": ("replicate", "shard"),
}
