"""Train and evaluate on 1, 2, 3, ... rows in this process, with the others of its launch."""

from torch.utils.data import Subset
from transformers import PrinterCallback

from trainers import parse_arguments
from trainers.config.assembly import build_collator, build_measure, open_model, read_rows


def steps_of_sizes(recipe: str, sizes: list[int]) -> list[int]:
    """Steps of each run, with the model that the run before has left."""
    args = parse_arguments(["--config", recipe])
    model = open_model(args)
    rows = read_rows(args, args.train_file, "rejected_rows.jsonl")
    output, collator, measure = args.output_dir, build_collator(args, model), build_measure(args)
    steps = []
    for size in sizes:
        args = parse_arguments(["--config", recipe, "--output_dir", f"{output}-{size}"])
        some = Subset(rows, range(size))
        trainer = args.objective_spec.trainer(
            model=model,
            args=args,
            loss=args.build_loss(),
            data_collator=collator,
            train_dataset=some,
            eval_dataset=some,
            measure=measure,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        steps.append(trainer.state.global_step)
    return steps
