"""The paper's figures and open questions on this project's own data: each a JSON, a table and a plot."""
