"""KVMU: KV management unit (paper Section V-C; model `vrex.model.dre.kvstore`)."""
