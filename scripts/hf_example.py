"""Streams a long text through a small random Llama with ReSV; put your own model in its place.

.venv/bin/python scripts/hf_example.py
"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import vrex


def main() -> None:
    """Prefill in chunks, then generate, then plain attention again."""
    # Yours: AutoModelForCausalLM.from_pretrained(...), a Llama, Mistral, Qwen2 or Qwen3.
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=256,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=2,
        )
    ).eval()
    ids = torch.randint(0, 256, (1, 1100))
    with torch.no_grad(), vrex.retrieval(model, policy="resv", th_r=0.3, window=4) as session:
        for start in range(0, 1100, 11):
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
    print(f"  {report['clusters']} clusters of {report['tokens_per_cluster']:.1f} tokens")


if __name__ == "__main__":
    main()
