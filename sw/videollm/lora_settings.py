"""What an adapter_config.json of PEFT says: each key of its LoraConfig is understood or refused."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vrex.sw.videollm.section import Section, is_number, read_json

# What trains, where PEFT looks for modules, and the settings of initialisations that start from a model that
# is left as it is; which modules an adapter has is what its tensors say.
UNREAD = """
    task_type auto_mapping peft_version base_model_name_or_path revision inference_mode target_modules
    exclude_modules lora_dropout layers_to_transform layers_pattern megatron_core qalora_group_size
    runtime_config eva_config loftq_config corda_config lora_ga_config fan_in_fan_out
"""
READ = """
    peft_type r lora_alpha use_rslora use_dora rank_pattern alpha_pattern modules_to_save
    trainable_token_indices init_lora_weights bias
"""
OFF = """
    layer_replication alora_invocation_tokens use_qalora lora_bias target_parameters use_bdlora arrow_config
    kasa_config monteclora_config velora_config megatron_config ensure_weight_tying
"""
"""Keys that must be null, false or empty."""
PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Initialisations that leave the base model's weights as they are; PiSSA, OLoRA and others change them."""


@dataclass(frozen=True)
class LoraSettings:
    """A LoRA adapter's settings.

    Attributes:
        rank, alpha: of modules that the patterns do not name.
        ranks, alphas: by pattern, as PEFT matches it: a regular expression of the end of a module's name.
        rslora: divide alpha by the rank's square root.
        dora: scale each output of a weight to a norm of its own.
        saved: ends of names of modules that are saved whole.
        tokens: by the end of an embedding's name, the tokens whose rows are replaced.
    """

    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    rslora: bool
    dora: bool
    saved: tuple[str, ...]
    tokens: Mapping[str, tuple[int, ...]]

    def rank_of(self, module: str) -> int:
        """The rank of a module's A and B."""
        return _matched(self.ranks, module, self.rank)

    def scale_of(self, module: str) -> float:
        """What B A is multiplied by."""
        rank = self.rank_of(module)
        return _matched(self.alphas, module, self.alpha) / (math.sqrt(rank) if self.rslora else rank)

    def is_saved(self, module: str) -> bool:
        """Whether a module is saved whole."""
        return any(module.endswith(end) for end in self.saved)


def _matched(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """The value of the first pattern that matches a module's name."""
    found = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module))
    return next(found, default)


def read_lora_settings(path: Path) -> LoraSettings:
    """Reads an adapter_config.json.

    Args:
        path: the file.

    Raises:
        UserError: it can't be read, is not valid, or asks for what is not supported.
    """
    values = Section(read_json(path, "give an adapter folder"), path)
    values.only("peft_type", "LORA", required=True)
    values.known(UNREAD.split(), READ.split(), OFF.split())
    for key in OFF.split():
        if values.values.get(key) not in (None, False, [], {}):
            raise values.fault(key, f"is {values.values[key]!r}, which is not supported")
    start = values.get("init_lora_weights", True)
    if start not in PLAIN_STARTS:
        raise values.fault(
            "init_lora_weights",
            f"is {start!r}, which changes the base model's weights; save the adapter for the unchanged "
            "model (path_initial_model_for_weight_conversion in PEFT)",
        )
    alpha = values.get("lora_alpha")
    if not is_number(alpha):
        raise values.fault("lora_alpha", f"is {alpha!r}, expected a number")
    return LoraSettings(
        rank=values.size("r"),
        alpha=float(alpha),
        ranks=_pattern(values, "rank_pattern"),
        alphas=_pattern(values, "alpha_pattern"),
        rslora=values.flag("use_rslora", False),
        dora=values.flag("use_dora", False),
        saved=tuple(_words(values, "modules_to_save")),
        tokens=_tokens(values),
    )


def _pattern(values: Section, key: str) -> dict[str, Any]:
    """`rank_pattern` or `alpha_pattern`."""
    pattern = values.get(key, {})
    is_rank = key == "rank_pattern"
    for name, value in pattern.items() if isinstance(pattern, dict) else [("", None)]:
        try:
            re.compile(name)
        except re.error as error:
            raise values.fault(key, f"holds {name!r}, which is no regular expression") from error
        if not is_number(value) or (is_rank and (not isinstance(value, int) or value < 1)):
            raise values.fault(key, f"is {pattern!r}, expected a number for each name")
    return dict(pattern)


def _words(values: Section, key: str) -> list[str]:
    words = values.get(key, [])
    if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
        raise values.fault(key, f"is {words!r}, expected a list of names")
    return words


def _tokens(values: Section) -> dict[str, tuple[int, ...]]:
    """`trainable_token_indices`: of the embedding by default, or by the ends of modules' names."""
    found = values.get("trainable_token_indices", {})
    tokens = {"embed_tokens": found} if isinstance(found, list) else found
    for ids in tokens.values() if isinstance(tokens, dict) else [None]:
        if not isinstance(ids, list) or any(type(i) is not int or i < 0 for i in ids):
            raise values.fault("trainable_token_indices", f"is {found!r}, expected token ids")
    return {name: tuple(ids) for name, ids in tokens.items()}
