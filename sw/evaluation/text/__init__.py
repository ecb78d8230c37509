"""A real language model on real text: policies by perplexity and by needles found."""
