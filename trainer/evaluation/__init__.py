"""How good retrieval and ranking are: tests a run has not seen, whole catalogues, beside baselines.

`protocol` says what is asked, `scorers` who answers, `places` where the wanted item then stands;
`measures` are the figures of one answer, `resampling` their intervals, `slices` whom they are of,
`reranking` what the ranker makes of candidates; `ranking` puts them together, `report` tells them.
"""
