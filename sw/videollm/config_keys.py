"""Keys of checkpoints' configurations: those that are read, those that change nothing, those with one value.

Any other key may change what is computed, and is refused.
"""

from typing import Any


def _keys(words: str) -> frozenset[str]:
    return frozenset(words.split())


ROPE_THETA = 10000.0
"""What transformers takes where a configuration has no rope_theta, as those of Llama 2."""
NORM_EPS = 1e-6
"""What transformers takes where there is no rms_norm_eps."""
QWEN3_HEAD_DIM = 128
"""What transformers takes where a Qwen3 configuration has no head_dim."""

COMMON_ONLY: dict[str, Any] = {
    "is_encoder_decoder": False,
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_encoder_decoder": False,
    "torchscript": False,
    "pruned_heads": {},
}
COMMON_KEYS = _keys("""
    model_type architectures dtype torch_dtype transformers_version _name_or_path name_or_path _commit_hash
    use_cache initializer_range initializer_factor attention_dropout attn_implementation _attn_implementation
    _attn_implementation_autoset unsloth_version unsloth_fixed pad_token_id sep_token_id
    decoder_start_token_id output_attentions output_hidden_states return_dict return_dict_in_generate
    output_scores chunk_size_feed_forward use_bfloat16 tf_legacy_loss finetuning_task problem_type id2label
    label2id num_labels prefix tokenizer_class task_specific_params max_length min_length do_sample
    early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p typical_p
    repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    num_return_sequences forced_bos_token_id forced_eos_token_id remove_invalid_values
    exponential_decay_length_penalty suppress_tokens begin_suppress_tokens cross_attention_hidden_size
    tie_last_hidden_states
""")
"""Keys of any configuration that change nothing in what a forward pass gives."""

TEXT_ONLY: dict[str, Any] = COMMON_ONLY | {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "partial_rotary_factor": 1.0,
}
"""Keys that change what is computed, and the one value that is supported, which is the default."""
# max_window_layers and sliding_window of Qwen3 count only with use_sliding_window; pretraining_tp asks for
# the same products in parts.
TEXT_KEYS = _keys("""
    vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads
    head_dim rope_theta rope_scaling rope_parameters rms_norm_eps tie_word_embeddings bos_token_id
    eos_token_id max_position_embeddings pretraining_tp sliding_window max_window_layers layer_types
""")
VISION_ONLY: dict[str, Any] = COMMON_ONLY | {
    "hidden_act": "gelu_pytorch_tanh",
    "vision_use_head": True,
    "num_channels": 3,
}
VISION_KEYS = _keys("""
    hidden_size intermediate_size num_hidden_layers num_attention_heads image_size patch_size layer_norm_eps
""")
ROPE_KEYS = ("rope_type", "type", "rope_theta", "partial_rotary_factor")
LLAMA3_KEYS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
"""In the order of `RopeScaling`."""
TOP_KEYS = _keys("""
    vision_config text_config frame_resolution frame_token_cls frame_token_pooled frame_num_tokens
    v_placeholder frame_token_interval stream_open stream_close user_prefix assistant_prefix image_mean
    image_std procstream
""")
