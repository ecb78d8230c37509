"""Retrieval in transformers: a long text streams through a small random Llama with codes and votes.

Put your own model in its place.

    python examples/huggingface.py

It takes extra `hf`. It ends with exit code 1 if the model attended to everything.
"""

import sys
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import vrex

TOKENS = 220


def main() -> int:
    """Prefill in chunks, then generate; behind the block the model attends to everything again."""
    # Yours: AutoModelForCausalLM.from_pretrained(...), a Llama, Mistral, Qwen2 or Qwen3.
    model: Any = LlamaForCausalLM(  # pyright does not know its `generate`
        LlamaConfig(
            vocab_size=256,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=2,
        )
    ).eval()
    ids = torch.randint(0, 256, (1, TOKENS))
    with torch.no_grad(), vrex.retrieval(model, k=32, window=4) as session:
        for start in range(0, TOKENS, 11):
            model(ids[:, start : start + 11], past_key_values=session.cache)
        # A question, by hand: `generate` takes the cache as well.
        answer = model.generate(
            torch.cat([ids, ids[:, :1]], dim=1),
            past_key_values=session.cache,
            max_new_tokens=20,
            do_sample=False,
        )
        report = session.report()
    print(f"{answer.shape[1]} tokens, of the past attended to:")
    print(f"  frames {report['ratio']['frame']:.1%}, text {report['ratio']['text']:.1%}")
    print(f"  {report['fetched']['tokens'] / sum(report['calls']):.1f} tokens fetched a chunk and layer")
    return 0 if report["ratio"]["frame"] < 1 else 1


if __name__ == "__main__":
    sys.exit(main())
