"""Commands, one file each: ``python scripts/NAME.py``."""

# The settings of each command, for the reference pages and their tests (``pkgutil.resolve_name``).
SETTINGS = {
    "train.py": "trainers:TandemArguments",
    "evaluate.py": "evaluation.settings:EvaluateSettings",
    "merge.py": "scripts.merge:MergeSettings",
    "fuse.py": "scripts.fuse:FuseSettings",
    "search_settings.py": "scripts.search_settings:SearchSettings",
    "export.py": "scripts.export:ExportSettings",
    "index.py": "scripts.index:IndexSettings",
    "serve.py": "serving.settings:ServeSettings",
    "mine_negatives.py": "mining.settings:MiningSettings",
    "score_with_teacher.py": "mining.settings:ScoringSettings",
    "convert_reranker.py": "scripts.convert_reranker:ConvertRerankerSettings",
    "prepare_data.py docstrings": "preparation.commands.docstrings:DocstringsSettings",
    "prepare_data.py sample": "preparation.commands.sample:SampleSettings",
    "prepare_data.py mldr": "preparation.commands.mldr:MldrSettings",
    "prepare_data.py beir": "preparation.commands.beir:BeirSettings",
    "prepare_data.py convert": "preparation.commands.convert:ConvertSettings",
    "prepare_data.py split": "preparation.commands.split:SplitSettings",
    "prepare_data.py embed": "preparation.commands.embed:EmbedSettings",
    "prepare_data.py validate": "preparation.commands.validate:ValidateSettings",
}
