"""Many networks at once: seeds, qconfigs, presets, routes and toolchains through joblib or Dask, kept as Parquet."""
