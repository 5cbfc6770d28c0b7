"""Train and evaluate on 1, 2, 3, ... rows in this process, with the others of its launch."""

from torch.utils.data import Subset
from transformers import PrinterCallback

from trainers import parse_run
from trainers.config.assembly import build_collator, build_measure, open_model, read_rows


def steps_of_sizes(recipe: str, sizes: list[int]) -> list[int]:
    """Steps of each run, with the model that the run before has left."""
    run = parse_run(["--config", recipe])
    model, output = open_model(run), run.args.output_dir
    rows = read_rows(run, run.args.train_file, "rejected_rows.jsonl")
    collator, measure = build_collator(run, model), build_measure(run)
    steps = []
    for size in sizes:
        run = parse_run(["--config", recipe, "--output_dir", f"{output}-{size}"])
        some = Subset(rows, range(size))
        trainer = run.build_trainer(
            model=model,
            data_collator=collator,
            train_dataset=some,
            eval_dataset=some,
            measure=measure,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        steps.append(trainer.state.global_step)
    return steps
