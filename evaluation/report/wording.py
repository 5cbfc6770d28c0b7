"""The texts of reports and figures, in English and Chinese."""

from typing import Literal

from encoders.kinds import KINDS

Language = Literal["en", "zh"]
Words = dict[str, str]

EN: Words = {
    "html_language": "en",
    # Page
    "title_results": "Evaluation report",
    "title_run": "Training report",
    "task_retrieval": "retrieval: every query searches all documents",
    "task_reranking": "reranking: the candidates of every query are put in order",
    "task_pairs": "judged pairs: scores are compared with the judgements",
    "better": "Better than the base",
    "worse": "Worse than the base",
    "unclear": "No difference from the base can be shown",
    "measured": "Measured",
    "verdict": "{metric} went from {base} to {tuned}: {difference}, 95 % interval {low} to {high}.",
    "verdict_alone": "{metric} is {tuned}. No base model was measured with it.",
    "verdict_undefined": "{metric} is undefined: {reason}.",
    "undefined": "undefined",
    "undefined_because": "Undefined: {names} ({reason}).",
    "counts": "{wins} queries gained, {losses} lost, {ties} stayed as they were.",
    "what": "What was measured",
    "kind": "Kind of model",
    "task": "Task",
    "data": "Data",
    "queries": "Queries",
    "documents": "Documents",
    "pairs": "Pairs",
    "measured_on": "Measured on",
    "training": "How it was trained",
    "objective": "Objective",
    "base_model": "Base model",
    "train_file": "Training data",
    "eval_file": "Data of the evaluations",
    "batch_size": "Batch size of a process",
    "length": "Length",
    "epochs": "{count} epochs",
    "steps": "{count} steps",
    "comparison": "Base against fine-tuned",
    "values": "Figures",
    "first_stage": "First stage against reranked",
    "first_stage_note": "“Base” is here the order of the first stage, {name}.",
    "metric": "metric",
    "base": "base",
    "fine-tuned": "fine-tuned",
    "difference_interval": "difference, 95 % interval",
    "p_value": "p",
    "wins": "wins",
    "losses": "losses",
    "ties": "ties",
    "how_to_read": (
        "A difference is the mean over all queries, with its 95 % interval from a paired "
        "bootstrap; p is the two-sided p-value of a paired randomisation test. An interval without "
        "0 is set in bold: the difference is then hardly chance."
    ),
    "how_to_read_pairs": (
        "The 95 % interval of a difference is from a paired bootstrap over the pairs; p is the "
        "two-sided p-value of a paired randomisation test. An interval without 0 is set in bold: "
        "the difference is then hardly chance."
    ),
    "figures": "Pictures",
    "gained": "Queries that gained most",
    "lost": "Queries that lost most",
    "none_gained": "No query gained.",
    "none_lost": "No query lost.",
    "changed_note": "{metric} of the query with the base and with the fine-tuned model, and the "
    "document that is judged most relevant to it.",
    "no_text": "(its text is not among the documents)",
    "made_by": "Made by Tandem.",
    # Figures
    "loss": "Loss",
    "training_loss": "training",
    "evaluation_loss": "evaluation",
    "learning_rate": "Learning rate",
    "in_batch_accuracy": "In-batch accuracy",
    "evaluation_metrics": "Metrics at each evaluation",
    "step": "step",
    "running_mean": "training, running mean",
    "bars": "Base against fine-tuned",
    "bars_alone": "Fine-tuned model",
    "bars_caption": "The whisker is the 95 % interval of the difference, set on the base's value: "
    "where it does not reach the end of the grey bar, the difference is hardly chance.",
    "scores": "Scores of relevant and irrelevant {items}",
    "items_documents": "documents",
    "items_pairs": "pairs",
    "scores_caption": "The less the two overlap, the better the model tells them apart. Each adds "
    "up to 1.",
    "relevant": "relevant",
    "irrelevant": "irrelevant",
    "score": "score",
    "share": "share",
    "from_to": "{name}: {first} at step {start}, {last} at step {end}",
    "at": "{name}: {first} at step {start}",
    "bar": "{metric}: {values}",
    "alt": "{title}. {said}.",
    "joint": "; ",
    "median": "{model}: median {relevant} of relevant, {irrelevant} of irrelevant ones",
}

ZH: Words = {
    "html_language": "zh-CN",
    "title_results": "评测报告",
    "title_run": "训练报告",
    "task_retrieval": "检索：每个查询搜索全部文档",
    "task_reranking": "重排：给每个查询的候选文档排序",
    "task_pairs": "标注对：把分数与标注比较",
    "better": "优于基础模型",
    "worse": "不如基础模型",
    "unclear": "看不出与基础模型有差别",
    "measured": "测量结果",
    "verdict": "{metric} 从 {base} 变为 {tuned}：{difference}，95 % 区间 {low} 到 {high}。",
    "verdict_alone": "{metric} 为 {tuned}，没有同时测量基础模型。",
    "verdict_undefined": "{metric} 无定义：{reason}。",
    "undefined": "无定义",
    "undefined_because": "无定义：{names}（{reason}）。",
    "counts": "{wins} 个查询变好，{losses} 个变差，{ties} 个不变。",
    "what": "测量了什么",
    "kind": "模型种类",
    "task": "任务",
    "data": "数据",
    "queries": "查询",
    "documents": "文档",
    "pairs": "文本对",
    "measured_on": "测量时间",
    "training": "如何训练",
    "objective": "训练目标",
    "base_model": "基础模型",
    "train_file": "训练数据",
    "eval_file": "训练中评测的数据",
    "batch_size": "每个进程的批大小",
    "length": "训练长度",
    "epochs": "{count} 轮",
    "steps": "{count} 步",
    "comparison": "基础模型与微调后比较",
    "values": "数值",
    "first_stage": "第一阶段与重排后比较",
    "first_stage_note": "这里的“基础”是第一阶段 {name} 给出的顺序。",
    "metric": "指标",
    "base": "基础",
    "fine-tuned": "微调后",
    "difference_interval": "差值与 95 % 区间",
    "p_value": "p",
    "wins": "变好",
    "losses": "变差",
    "ties": "不变",
    "how_to_read": (
        "差值是所有查询上的平均，95 % 区间来自配对自助法（paired bootstrap），p 是配对随机化检验的"
        "双侧 p 值。区间不含 0 时用粗体：这样的差别很难归于偶然。"
    ),
    "how_to_read_pairs": (
        "差值的 95 % 区间来自对文本对的配对自助法（paired bootstrap），p 是配对随机化检验的"
        "双侧 p 值。区间不含 0 时用粗体：这样的差别很难归于偶然。"
    ),
    "figures": "图",
    "gained": "进步最大的查询",
    "lost": "退步最大的查询",
    "none_gained": "没有变好的查询。",
    "none_lost": "没有变差的查询。",
    "changed_note": "该查询在基础模型和微调后模型下的 {metric}，以及标注中与它最相关的文档。",
    "no_text": "（文档集中没有它的文本）",
    "made_by": "由 Tandem 生成。",
    "loss": "损失",
    "training_loss": "训练",
    "evaluation_loss": "评测",
    "learning_rate": "学习率",
    "in_batch_accuracy": "批内准确率",
    "evaluation_metrics": "每次评测的指标",
    "step": "步",
    "running_mean": "训练（滑动平均）",
    "bars": "基础模型与微调后",
    "bars_alone": "微调后的模型",
    "bars_caption": "须线是差值的 95 % 区间，以基础模型的值为起点：它碰不到灰色条的末端时，"
    "差别很难归于偶然。",
    "scores": "相关与不相关{items}的分数",
    "items_documents": "文档",
    "items_pairs": "文本对",
    "scores_caption": "两者重叠越少，模型区分得越好。各自的总和为 1。",
    "relevant": "相关",
    "irrelevant": "不相关",
    "score": "分数",
    "share": "占比",
    "from_to": "{name}：第 {start} 步 {first}，第 {end} 步 {last}",
    "at": "{name}：第 {start} 步 {first}",
    "bar": "{metric}：{values}",
    "alt": "{title}。{said}。",
    "joint": "；",
    "median": "{model}：相关的中位数 {relevant}，不相关的中位数 {irrelevant}",
}

WORDS: dict[str, Words] = {
    language: words | {kind: row.labels[language] for kind, row in KINDS.items()}
    for language, words in (("en", EN), ("zh", ZH))
}
