#!/bin/sh -e
fwpkm train results/ablations/as-it-is/seed-0/recipe.toml --out results/ablations/as-it-is/seed-0/run --resume
fwpkm eval needles results/ablations/as-it-is/seed-0/run/model --text corpus --name 'as it is' --out results/ablations/as-it-is/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/as-it-is/seed-0/run/model --text corpus --name 'as it is' --out results/ablations/as-it-is/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/as-it-is/seed-0/run/model --text corpus --name 'as it is' --out results/ablations/as-it-is/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/temperature-1-fixed/seed-0/recipe.toml --out results/ablations/temperature-1-fixed/seed-0/run --resume
fwpkm eval needles results/ablations/temperature-1-fixed/seed-0/run/model --text corpus --name 'temperature 1, fixed' --out results/ablations/temperature-1-fixed/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/temperature-1-fixed/seed-0/run/model --text corpus --name 'temperature 1, fixed' --out results/ablations/temperature-1-fixed/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/temperature-1-fixed/seed-0/run/model --text corpus --name 'temperature 1, fixed' --out results/ablations/temperature-1-fixed/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/temperature-1-learned/seed-0/recipe.toml --out results/ablations/temperature-1-learned/seed-0/run --resume
fwpkm eval needles results/ablations/temperature-1-learned/seed-0/run/model --text corpus --name 'temperature 1, learned' --out results/ablations/temperature-1-learned/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/temperature-1-learned/seed-0/run/model --text corpus --name 'temperature 1, learned' --out results/ablations/temperature-1-learned/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/temperature-1-learned/seed-0/run/model --text corpus --name 'temperature 1, learned' --out results/ablations/temperature-1-learned/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/temperature-0-25-fixed/seed-0/recipe.toml --out results/ablations/temperature-0-25-fixed/seed-0/run --resume
fwpkm eval needles results/ablations/temperature-0-25-fixed/seed-0/run/model --text corpus --name 'temperature 0.25, fixed' --out results/ablations/temperature-0-25-fixed/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/temperature-0-25-fixed/seed-0/run/model --text corpus --name 'temperature 0.25, fixed' --out results/ablations/temperature-0-25-fixed/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/temperature-0-25-fixed/seed-0/run/model --text corpus --name 'temperature 0.25, fixed' --out results/ablations/temperature-0-25-fixed/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/sub-keys-uniform-as-in-the-release/seed-0/recipe.toml --out results/ablations/sub-keys-uniform-as-in-the-release/seed-0/run --resume
fwpkm eval needles results/ablations/sub-keys-uniform-as-in-the-release/seed-0/run/model --text corpus --name 'sub-keys uniform, as in the release' --out results/ablations/sub-keys-uniform-as-in-the-release/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/sub-keys-uniform-as-in-the-release/seed-0/run/model --text corpus --name 'sub-keys uniform, as in the release' --out results/ablations/sub-keys-uniform-as-in-the-release/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/sub-keys-uniform-as-in-the-release/seed-0/run/model --text corpus --name 'sub-keys uniform, as in the release' --out results/ablations/sub-keys-uniform-as-in-the-release/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/sub-keys-with-deviation-0-3/seed-0/recipe.toml --out results/ablations/sub-keys-with-deviation-0-3/seed-0/run --resume
fwpkm eval needles results/ablations/sub-keys-with-deviation-0-3/seed-0/run/model --text corpus --name 'sub-keys with deviation 0.3' --out results/ablations/sub-keys-with-deviation-0-3/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/sub-keys-with-deviation-0-3/seed-0/run/model --text corpus --name 'sub-keys with deviation 0.3' --out results/ablations/sub-keys-with-deviation-0-3/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/sub-keys-with-deviation-0-3/seed-0/run/model --text corpus --name 'sub-keys with deviation 0.3' --out results/ablations/sub-keys-with-deviation-0-3/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/sub-keys-with-deviation-3/seed-0/recipe.toml --out results/ablations/sub-keys-with-deviation-3/seed-0/run --resume
fwpkm eval needles results/ablations/sub-keys-with-deviation-3/seed-0/run/model --text corpus --name 'sub-keys with deviation 3' --out results/ablations/sub-keys-with-deviation-3/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/sub-keys-with-deviation-3/seed-0/run/model --text corpus --name 'sub-keys with deviation 3' --out results/ablations/sub-keys-with-deviation-3/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/sub-keys-with-deviation-3/seed-0/run/model --text corpus --name 'sub-keys with deviation 3' --out results/ablations/sub-keys-with-deviation-3/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/queries-as-they-come/seed-0/recipe.toml --out results/ablations/queries-as-they-come/seed-0/run --resume
fwpkm eval needles results/ablations/queries-as-they-come/seed-0/run/model --text corpus --name 'queries as they come' --out results/ablations/queries-as-they-come/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/queries-as-they-come/seed-0/run/model --text corpus --name 'queries as they come' --out results/ablations/queries-as-they-come/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/queries-as-they-come/seed-0/run/model --text corpus --name 'queries as they come' --out results/ablations/queries-as-they-come/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/write-rule-paper/seed-0/recipe.toml --out results/ablations/write-rule-paper/seed-0/run --resume
fwpkm eval needles results/ablations/write-rule-paper/seed-0/run/model --text corpus --name 'write rule: paper' --out results/ablations/write-rule-paper/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/write-rule-paper/seed-0/run/model --text corpus --name 'write rule: paper' --out results/ablations/write-rule-paper/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/write-rule-paper/seed-0/run/model --text corpus --name 'write rule: paper' --out results/ablations/write-rule-paper/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/write-rule-release/seed-0/recipe.toml --out results/ablations/write-rule-release/seed-0/run --resume
fwpkm eval needles results/ablations/write-rule-release/seed-0/run/model --text corpus --name 'write rule: release' --out results/ablations/write-rule-release/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/write-rule-release/seed-0/run/model --text corpus --name 'write rule: release' --out results/ablations/write-rule-release/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/write-rule-release/seed-0/run/model --text corpus --name 'write rule: release' --out results/ablations/write-rule-release/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/pairs-across-borders-dropped/seed-0/recipe.toml --out results/ablations/pairs-across-borders-dropped/seed-0/run --resume
fwpkm eval needles results/ablations/pairs-across-borders-dropped/seed-0/run/model --text corpus --name 'pairs across borders dropped' --out results/ablations/pairs-across-borders-dropped/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/pairs-across-borders-dropped/seed-0/run/model --text corpus --name 'pairs across borders dropped' --out results/ablations/pairs-across-borders-dropped/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/pairs-across-borders-dropped/seed-0/run/model --text corpus --name 'pairs across borders dropped' --out results/ablations/pairs-across-borders-dropped/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/one-table-for-the-batch/seed-0/recipe.toml --out results/ablations/one-table-for-the-batch/seed-0/run --resume
fwpkm eval needles results/ablations/one-table-for-the-batch/seed-0/run/model --text corpus --name 'one table for the batch' --out results/ablations/one-table-for-the-batch/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/one-table-for-the-batch/seed-0/run/model --text corpus --name 'one table for the batch' --out results/ablations/one-table-for-the-batch/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/one-table-for-the-batch/seed-0/run/model --text corpus --name 'one table for the batch' --out results/ablations/one-table-for-the-batch/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/carried-through-documents-without-recall-tasks/seed-0/recipe.toml --out results/ablations/carried-through-documents-without-recall-tasks/seed-0/run --resume
fwpkm eval needles results/ablations/carried-through-documents-without-recall-tasks/seed-0/run/model --text corpus --name 'carried through documents, without recall tasks' --out results/ablations/carried-through-documents-without-recall-tasks/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/carried-through-documents-without-recall-tasks/seed-0/run/model --text corpus --name 'carried through documents, without recall tasks' --out results/ablations/carried-through-documents-without-recall-tasks/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/carried-through-documents-without-recall-tasks/seed-0/run/model --text corpus --name 'carried through documents, without recall tasks' --out results/ablations/carried-through-documents-without-recall-tasks/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/fresh-without-recall-tasks/seed-0/recipe.toml --out results/ablations/fresh-without-recall-tasks/seed-0/run --resume
fwpkm eval needles results/ablations/fresh-without-recall-tasks/seed-0/run/model --text corpus --name 'fresh, without recall tasks' --out results/ablations/fresh-without-recall-tasks/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/fresh-without-recall-tasks/seed-0/run/model --text corpus --name 'fresh, without recall tasks' --out results/ablations/fresh-without-recall-tasks/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/fresh-without-recall-tasks/seed-0/run/model --text corpus --name 'fresh, without recall tasks' --out results/ablations/fresh-without-recall-tasks/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/lookahead-0/seed-0/recipe.toml --out results/ablations/lookahead-0/seed-0/run --resume
fwpkm eval needles results/ablations/lookahead-0/seed-0/run/model --text corpus --name 'lookahead 0' --out results/ablations/lookahead-0/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/lookahead-0/seed-0/run/model --text corpus --name 'lookahead 0' --out results/ablations/lookahead-0/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/lookahead-0/seed-0/run/model --text corpus --name 'lookahead 0' --out results/ablations/lookahead-0/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/lookahead-2/seed-0/recipe.toml --out results/ablations/lookahead-2/seed-0/run --resume
fwpkm eval needles results/ablations/lookahead-2/seed-0/run/model --text corpus --name 'lookahead 2' --out results/ablations/lookahead-2/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/lookahead-2/seed-0/run/model --text corpus --name 'lookahead 2' --out results/ablations/lookahead-2/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/lookahead-2/seed-0/run/model --text corpus --name 'lookahead 2' --out results/ablations/lookahead-2/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/4-slots/seed-0/recipe.toml --out results/ablations/4-slots/seed-0/run --resume
fwpkm eval needles results/ablations/4-slots/seed-0/run/model --text corpus --name '4 slots' --out results/ablations/4-slots/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/4-slots/seed-0/run/model --text corpus --name '4 slots' --out results/ablations/4-slots/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/4-slots/seed-0/run/model --text corpus --name '4 slots' --out results/ablations/4-slots/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/16-slots/seed-0/recipe.toml --out results/ablations/16-slots/seed-0/run --resume
fwpkm eval needles results/ablations/16-slots/seed-0/run/model --text corpus --name '16 slots' --out results/ablations/16-slots/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/16-slots/seed-0/run/model --text corpus --name '16 slots' --out results/ablations/16-slots/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/16-slots/seed-0/run/model --text corpus --name '16 slots' --out results/ablations/16-slots/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/1-head-32-slots/seed-0/recipe.toml --out results/ablations/1-head-32-slots/seed-0/run --resume
fwpkm eval needles results/ablations/1-head-32-slots/seed-0/run/model --text corpus --name '1 head, 32 slots' --out results/ablations/1-head-32-slots/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/1-head-32-slots/seed-0/run/model --text corpus --name '1 head, 32 slots' --out results/ablations/1-head-32-slots/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/1-head-32-slots/seed-0/run/model --text corpus --name '1 head, 32 slots' --out results/ablations/1-head-32-slots/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/4-heads-of-8-slots/seed-0/recipe.toml --out results/ablations/4-heads-of-8-slots/seed-0/run --resume
fwpkm eval needles results/ablations/4-heads-of-8-slots/seed-0/run/model --text corpus --name '4 heads of 8 slots' --out results/ablations/4-heads-of-8-slots/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/4-heads-of-8-slots/seed-0/run/model --text corpus --name '4 heads of 8 slots' --out results/ablations/4-heads-of-8-slots/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/4-heads-of-8-slots/seed-0/run/model --text corpus --name '4 heads of 8 slots' --out results/ablations/4-heads-of-8-slots/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/values-as-they-come/seed-0/recipe.toml --out results/ablations/values-as-they-come/seed-0/run --resume
fwpkm eval needles results/ablations/values-as-they-come/seed-0/run/model --text corpus --name 'values as they come' --out results/ablations/values-as-they-come/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/values-as-they-come/seed-0/run/model --text corpus --name 'values as they come' --out results/ablations/values-as-they-come/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/values-as-they-come/seed-0/run/model --text corpus --name 'values as they come' --out results/ablations/values-as-they-come/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/addressing-loss-x-0-1/seed-0/recipe.toml --out results/ablations/addressing-loss-x-0-1/seed-0/run --resume
fwpkm eval needles results/ablations/addressing-loss-x-0-1/seed-0/run/model --text corpus --name 'addressing loss x 0.1' --out results/ablations/addressing-loss-x-0-1/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/addressing-loss-x-0-1/seed-0/run/model --text corpus --name 'addressing loss x 0.1' --out results/ablations/addressing-loss-x-0-1/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/addressing-loss-x-0-1/seed-0/run/model --text corpus --name 'addressing loss x 0.1' --out results/ablations/addressing-loss-x-0-1/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/addressing-loss-x-10/seed-0/recipe.toml --out results/ablations/addressing-loss-x-10/seed-0/run --resume
fwpkm eval needles results/ablations/addressing-loss-x-10/seed-0/run/model --text corpus --name 'addressing loss x 10' --out results/ablations/addressing-loss-x-10/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/addressing-loss-x-10/seed-0/run/model --text corpus --name 'addressing loss x 10' --out results/ablations/addressing-loss-x-10/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/addressing-loss-x-10/seed-0/run/model --text corpus --name 'addressing loss x 10' --out results/ablations/addressing-loss-x-10/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/no-addressing-loss/seed-0/recipe.toml --out results/ablations/no-addressing-loss/seed-0/run --resume
fwpkm eval needles results/ablations/no-addressing-loss/seed-0/run/model --text corpus --name 'no addressing loss' --out results/ablations/no-addressing-loss/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/no-addressing-loss/seed-0/run/model --text corpus --name 'no addressing loss' --out results/ablations/no-addressing-loss/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/no-addressing-loss/seed-0/run/model --text corpus --name 'no addressing loss' --out results/ablations/no-addressing-loss/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/memory-loss-not-weighed-by-the-gate/seed-0/recipe.toml --out results/ablations/memory-loss-not-weighed-by-the-gate/seed-0/run --resume
fwpkm eval needles results/ablations/memory-loss-not-weighed-by-the-gate/seed-0/run/model --text corpus --name 'memory loss not weighed by the gate' --out results/ablations/memory-loss-not-weighed-by-the-gate/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/memory-loss-not-weighed-by-the-gate/seed-0/run/model --text corpus --name 'memory loss not weighed by the gate' --out results/ablations/memory-loss-not-weighed-by-the-gate/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/memory-loss-not-weighed-by-the-gate/seed-0/run/model --text corpus --name 'memory loss not weighed by the gate' --out results/ablations/memory-loss-not-weighed-by-the-gate/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/answers-weigh-1/seed-0/recipe.toml --out results/ablations/answers-weigh-1/seed-0/run --resume
fwpkm eval needles results/ablations/answers-weigh-1/seed-0/run/model --text corpus --name 'answers weigh 1' --out results/ablations/answers-weigh-1/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/answers-weigh-1/seed-0/run/model --text corpus --name 'answers weigh 1' --out results/ablations/answers-weigh-1/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/answers-weigh-1/seed-0/run/model --text corpus --name 'answers weigh 1' --out results/ablations/answers-weigh-1/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/no-gate/seed-0/recipe.toml --out results/ablations/no-gate/seed-0/run --resume
fwpkm eval needles results/ablations/no-gate/seed-0/run/model --text corpus --name 'no gate' --out results/ablations/no-gate/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/no-gate/seed-0/run/model --text corpus --name 'no gate' --out results/ablations/no-gate/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/no-gate/seed-0/run/model --text corpus --name 'no gate' --out results/ablations/no-gate/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/open-gates-cost-nothing/seed-0/recipe.toml --out results/ablations/open-gates-cost-nothing/seed-0/run --resume
fwpkm eval needles results/ablations/open-gates-cost-nothing/seed-0/run/model --text corpus --name 'open gates cost nothing' --out results/ablations/open-gates-cost-nothing/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/open-gates-cost-nothing/seed-0/run/model --text corpus --name 'open gates cost nothing' --out results/ablations/open-gates-cost-nothing/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/open-gates-cost-nothing/seed-0/run/model --text corpus --name 'open gates cost nothing' --out results/ablations/open-gates-cost-nothing/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/open-gates-of-both-memories-cost-0-03/seed-0/recipe.toml --out results/ablations/open-gates-of-both-memories-cost-0-03/seed-0/run --resume
fwpkm eval needles results/ablations/open-gates-of-both-memories-cost-0-03/seed-0/run/model --text corpus --name 'open gates of both memories cost 0.03' --out results/ablations/open-gates-of-both-memories-cost-0-03/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/open-gates-of-both-memories-cost-0-03/seed-0/run/model --text corpus --name 'open gates of both memories cost 0.03' --out results/ablations/open-gates-of-both-memories-cost-0-03/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/open-gates-of-both-memories-cost-0-03/seed-0/run/model --text corpus --name 'open gates of both memories cost 0.03' --out results/ablations/open-gates-of-both-memories-cost-0-03/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/queries-not-aligned/seed-0/recipe.toml --out results/ablations/queries-not-aligned/seed-0/run --resume
fwpkm eval needles results/ablations/queries-not-aligned/seed-0/run/model --text corpus --name 'queries not aligned' --out results/ablations/queries-not-aligned/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/queries-not-aligned/seed-0/run/model --text corpus --name 'queries not aligned' --out results/ablations/queries-not-aligned/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/queries-not-aligned/seed-0/run/model --text corpus --name 'queries not aligned' --out results/ablations/queries-not-aligned/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/queries-aligned-x-10/seed-0/recipe.toml --out results/ablations/queries-aligned-x-10/seed-0/run --resume
fwpkm eval needles results/ablations/queries-aligned-x-10/seed-0/run/model --text corpus --name 'queries aligned x 10' --out results/ablations/queries-aligned-x-10/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/queries-aligned-x-10/seed-0/run/model --text corpus --name 'queries aligned x 10' --out results/ablations/queries-aligned-x-10/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/queries-aligned-x-10/seed-0/run/model --text corpus --name 'queries aligned x 10' --out results/ablations/queries-aligned-x-10/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/queries-aligned-after-the-same-6-bytes/seed-0/recipe.toml --out results/ablations/queries-aligned-after-the-same-6-bytes/seed-0/run --resume
fwpkm eval needles results/ablations/queries-aligned-after-the-same-6-bytes/seed-0/run/model --text corpus --name 'queries aligned after the same 6 bytes' --out results/ablations/queries-aligned-after-the-same-6-bytes/seed-0/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/queries-aligned-after-the-same-6-bytes/seed-0/run/model --text corpus --name 'queries aligned after the same 6 bytes' --out results/ablations/queries-aligned-after-the-same-6-bytes/seed-0/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/queries-aligned-after-the-same-6-bytes/seed-0/run/model --text corpus --name 'queries aligned after the same 6 bytes' --out results/ablations/queries-aligned-after-the-same-6-bytes/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/as-it-is/seed-1/recipe.toml --out results/ablations/as-it-is/seed-1/run --resume
fwpkm eval needles results/ablations/as-it-is/seed-1/run/model --text corpus --name 'as it is' --out results/ablations/as-it-is/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/as-it-is/seed-1/run/model --text corpus --name 'as it is' --out results/ablations/as-it-is/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/as-it-is/seed-1/run/model --text corpus --name 'as it is' --out results/ablations/as-it-is/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/temperature-1-fixed/seed-1/recipe.toml --out results/ablations/temperature-1-fixed/seed-1/run --resume
fwpkm eval needles results/ablations/temperature-1-fixed/seed-1/run/model --text corpus --name 'temperature 1, fixed' --out results/ablations/temperature-1-fixed/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/temperature-1-fixed/seed-1/run/model --text corpus --name 'temperature 1, fixed' --out results/ablations/temperature-1-fixed/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/temperature-1-fixed/seed-1/run/model --text corpus --name 'temperature 1, fixed' --out results/ablations/temperature-1-fixed/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/temperature-1-learned/seed-1/recipe.toml --out results/ablations/temperature-1-learned/seed-1/run --resume
fwpkm eval needles results/ablations/temperature-1-learned/seed-1/run/model --text corpus --name 'temperature 1, learned' --out results/ablations/temperature-1-learned/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/temperature-1-learned/seed-1/run/model --text corpus --name 'temperature 1, learned' --out results/ablations/temperature-1-learned/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/temperature-1-learned/seed-1/run/model --text corpus --name 'temperature 1, learned' --out results/ablations/temperature-1-learned/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/temperature-0-25-fixed/seed-1/recipe.toml --out results/ablations/temperature-0-25-fixed/seed-1/run --resume
fwpkm eval needles results/ablations/temperature-0-25-fixed/seed-1/run/model --text corpus --name 'temperature 0.25, fixed' --out results/ablations/temperature-0-25-fixed/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/temperature-0-25-fixed/seed-1/run/model --text corpus --name 'temperature 0.25, fixed' --out results/ablations/temperature-0-25-fixed/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/temperature-0-25-fixed/seed-1/run/model --text corpus --name 'temperature 0.25, fixed' --out results/ablations/temperature-0-25-fixed/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/sub-keys-uniform-as-in-the-release/seed-1/recipe.toml --out results/ablations/sub-keys-uniform-as-in-the-release/seed-1/run --resume
fwpkm eval needles results/ablations/sub-keys-uniform-as-in-the-release/seed-1/run/model --text corpus --name 'sub-keys uniform, as in the release' --out results/ablations/sub-keys-uniform-as-in-the-release/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/sub-keys-uniform-as-in-the-release/seed-1/run/model --text corpus --name 'sub-keys uniform, as in the release' --out results/ablations/sub-keys-uniform-as-in-the-release/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/sub-keys-uniform-as-in-the-release/seed-1/run/model --text corpus --name 'sub-keys uniform, as in the release' --out results/ablations/sub-keys-uniform-as-in-the-release/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/sub-keys-with-deviation-0-3/seed-1/recipe.toml --out results/ablations/sub-keys-with-deviation-0-3/seed-1/run --resume
fwpkm eval needles results/ablations/sub-keys-with-deviation-0-3/seed-1/run/model --text corpus --name 'sub-keys with deviation 0.3' --out results/ablations/sub-keys-with-deviation-0-3/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/sub-keys-with-deviation-0-3/seed-1/run/model --text corpus --name 'sub-keys with deviation 0.3' --out results/ablations/sub-keys-with-deviation-0-3/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/sub-keys-with-deviation-0-3/seed-1/run/model --text corpus --name 'sub-keys with deviation 0.3' --out results/ablations/sub-keys-with-deviation-0-3/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/sub-keys-with-deviation-3/seed-1/recipe.toml --out results/ablations/sub-keys-with-deviation-3/seed-1/run --resume
fwpkm eval needles results/ablations/sub-keys-with-deviation-3/seed-1/run/model --text corpus --name 'sub-keys with deviation 3' --out results/ablations/sub-keys-with-deviation-3/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/sub-keys-with-deviation-3/seed-1/run/model --text corpus --name 'sub-keys with deviation 3' --out results/ablations/sub-keys-with-deviation-3/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/sub-keys-with-deviation-3/seed-1/run/model --text corpus --name 'sub-keys with deviation 3' --out results/ablations/sub-keys-with-deviation-3/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/queries-as-they-come/seed-1/recipe.toml --out results/ablations/queries-as-they-come/seed-1/run --resume
fwpkm eval needles results/ablations/queries-as-they-come/seed-1/run/model --text corpus --name 'queries as they come' --out results/ablations/queries-as-they-come/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/queries-as-they-come/seed-1/run/model --text corpus --name 'queries as they come' --out results/ablations/queries-as-they-come/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/queries-as-they-come/seed-1/run/model --text corpus --name 'queries as they come' --out results/ablations/queries-as-they-come/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/write-rule-paper/seed-1/recipe.toml --out results/ablations/write-rule-paper/seed-1/run --resume
fwpkm eval needles results/ablations/write-rule-paper/seed-1/run/model --text corpus --name 'write rule: paper' --out results/ablations/write-rule-paper/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/write-rule-paper/seed-1/run/model --text corpus --name 'write rule: paper' --out results/ablations/write-rule-paper/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/write-rule-paper/seed-1/run/model --text corpus --name 'write rule: paper' --out results/ablations/write-rule-paper/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/write-rule-release/seed-1/recipe.toml --out results/ablations/write-rule-release/seed-1/run --resume
fwpkm eval needles results/ablations/write-rule-release/seed-1/run/model --text corpus --name 'write rule: release' --out results/ablations/write-rule-release/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/write-rule-release/seed-1/run/model --text corpus --name 'write rule: release' --out results/ablations/write-rule-release/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/write-rule-release/seed-1/run/model --text corpus --name 'write rule: release' --out results/ablations/write-rule-release/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/pairs-across-borders-dropped/seed-1/recipe.toml --out results/ablations/pairs-across-borders-dropped/seed-1/run --resume
fwpkm eval needles results/ablations/pairs-across-borders-dropped/seed-1/run/model --text corpus --name 'pairs across borders dropped' --out results/ablations/pairs-across-borders-dropped/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/pairs-across-borders-dropped/seed-1/run/model --text corpus --name 'pairs across borders dropped' --out results/ablations/pairs-across-borders-dropped/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/pairs-across-borders-dropped/seed-1/run/model --text corpus --name 'pairs across borders dropped' --out results/ablations/pairs-across-borders-dropped/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/one-table-for-the-batch/seed-1/recipe.toml --out results/ablations/one-table-for-the-batch/seed-1/run --resume
fwpkm eval needles results/ablations/one-table-for-the-batch/seed-1/run/model --text corpus --name 'one table for the batch' --out results/ablations/one-table-for-the-batch/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/one-table-for-the-batch/seed-1/run/model --text corpus --name 'one table for the batch' --out results/ablations/one-table-for-the-batch/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/one-table-for-the-batch/seed-1/run/model --text corpus --name 'one table for the batch' --out results/ablations/one-table-for-the-batch/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/carried-through-documents-without-recall-tasks/seed-1/recipe.toml --out results/ablations/carried-through-documents-without-recall-tasks/seed-1/run --resume
fwpkm eval needles results/ablations/carried-through-documents-without-recall-tasks/seed-1/run/model --text corpus --name 'carried through documents, without recall tasks' --out results/ablations/carried-through-documents-without-recall-tasks/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/carried-through-documents-without-recall-tasks/seed-1/run/model --text corpus --name 'carried through documents, without recall tasks' --out results/ablations/carried-through-documents-without-recall-tasks/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/carried-through-documents-without-recall-tasks/seed-1/run/model --text corpus --name 'carried through documents, without recall tasks' --out results/ablations/carried-through-documents-without-recall-tasks/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/fresh-without-recall-tasks/seed-1/recipe.toml --out results/ablations/fresh-without-recall-tasks/seed-1/run --resume
fwpkm eval needles results/ablations/fresh-without-recall-tasks/seed-1/run/model --text corpus --name 'fresh, without recall tasks' --out results/ablations/fresh-without-recall-tasks/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/fresh-without-recall-tasks/seed-1/run/model --text corpus --name 'fresh, without recall tasks' --out results/ablations/fresh-without-recall-tasks/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/fresh-without-recall-tasks/seed-1/run/model --text corpus --name 'fresh, without recall tasks' --out results/ablations/fresh-without-recall-tasks/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/lookahead-0/seed-1/recipe.toml --out results/ablations/lookahead-0/seed-1/run --resume
fwpkm eval needles results/ablations/lookahead-0/seed-1/run/model --text corpus --name 'lookahead 0' --out results/ablations/lookahead-0/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/lookahead-0/seed-1/run/model --text corpus --name 'lookahead 0' --out results/ablations/lookahead-0/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/lookahead-0/seed-1/run/model --text corpus --name 'lookahead 0' --out results/ablations/lookahead-0/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/lookahead-2/seed-1/recipe.toml --out results/ablations/lookahead-2/seed-1/run --resume
fwpkm eval needles results/ablations/lookahead-2/seed-1/run/model --text corpus --name 'lookahead 2' --out results/ablations/lookahead-2/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/lookahead-2/seed-1/run/model --text corpus --name 'lookahead 2' --out results/ablations/lookahead-2/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/lookahead-2/seed-1/run/model --text corpus --name 'lookahead 2' --out results/ablations/lookahead-2/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/4-slots/seed-1/recipe.toml --out results/ablations/4-slots/seed-1/run --resume
fwpkm eval needles results/ablations/4-slots/seed-1/run/model --text corpus --name '4 slots' --out results/ablations/4-slots/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/4-slots/seed-1/run/model --text corpus --name '4 slots' --out results/ablations/4-slots/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/4-slots/seed-1/run/model --text corpus --name '4 slots' --out results/ablations/4-slots/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/16-slots/seed-1/recipe.toml --out results/ablations/16-slots/seed-1/run --resume
fwpkm eval needles results/ablations/16-slots/seed-1/run/model --text corpus --name '16 slots' --out results/ablations/16-slots/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/16-slots/seed-1/run/model --text corpus --name '16 slots' --out results/ablations/16-slots/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/16-slots/seed-1/run/model --text corpus --name '16 slots' --out results/ablations/16-slots/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/1-head-32-slots/seed-1/recipe.toml --out results/ablations/1-head-32-slots/seed-1/run --resume
fwpkm eval needles results/ablations/1-head-32-slots/seed-1/run/model --text corpus --name '1 head, 32 slots' --out results/ablations/1-head-32-slots/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/1-head-32-slots/seed-1/run/model --text corpus --name '1 head, 32 slots' --out results/ablations/1-head-32-slots/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/1-head-32-slots/seed-1/run/model --text corpus --name '1 head, 32 slots' --out results/ablations/1-head-32-slots/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/4-heads-of-8-slots/seed-1/recipe.toml --out results/ablations/4-heads-of-8-slots/seed-1/run --resume
fwpkm eval needles results/ablations/4-heads-of-8-slots/seed-1/run/model --text corpus --name '4 heads of 8 slots' --out results/ablations/4-heads-of-8-slots/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/4-heads-of-8-slots/seed-1/run/model --text corpus --name '4 heads of 8 slots' --out results/ablations/4-heads-of-8-slots/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/4-heads-of-8-slots/seed-1/run/model --text corpus --name '4 heads of 8 slots' --out results/ablations/4-heads-of-8-slots/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/values-as-they-come/seed-1/recipe.toml --out results/ablations/values-as-they-come/seed-1/run --resume
fwpkm eval needles results/ablations/values-as-they-come/seed-1/run/model --text corpus --name 'values as they come' --out results/ablations/values-as-they-come/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/values-as-they-come/seed-1/run/model --text corpus --name 'values as they come' --out results/ablations/values-as-they-come/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/values-as-they-come/seed-1/run/model --text corpus --name 'values as they come' --out results/ablations/values-as-they-come/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/addressing-loss-x-0-1/seed-1/recipe.toml --out results/ablations/addressing-loss-x-0-1/seed-1/run --resume
fwpkm eval needles results/ablations/addressing-loss-x-0-1/seed-1/run/model --text corpus --name 'addressing loss x 0.1' --out results/ablations/addressing-loss-x-0-1/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/addressing-loss-x-0-1/seed-1/run/model --text corpus --name 'addressing loss x 0.1' --out results/ablations/addressing-loss-x-0-1/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/addressing-loss-x-0-1/seed-1/run/model --text corpus --name 'addressing loss x 0.1' --out results/ablations/addressing-loss-x-0-1/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/addressing-loss-x-10/seed-1/recipe.toml --out results/ablations/addressing-loss-x-10/seed-1/run --resume
fwpkm eval needles results/ablations/addressing-loss-x-10/seed-1/run/model --text corpus --name 'addressing loss x 10' --out results/ablations/addressing-loss-x-10/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/addressing-loss-x-10/seed-1/run/model --text corpus --name 'addressing loss x 10' --out results/ablations/addressing-loss-x-10/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/addressing-loss-x-10/seed-1/run/model --text corpus --name 'addressing loss x 10' --out results/ablations/addressing-loss-x-10/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/no-addressing-loss/seed-1/recipe.toml --out results/ablations/no-addressing-loss/seed-1/run --resume
fwpkm eval needles results/ablations/no-addressing-loss/seed-1/run/model --text corpus --name 'no addressing loss' --out results/ablations/no-addressing-loss/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/no-addressing-loss/seed-1/run/model --text corpus --name 'no addressing loss' --out results/ablations/no-addressing-loss/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/no-addressing-loss/seed-1/run/model --text corpus --name 'no addressing loss' --out results/ablations/no-addressing-loss/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/memory-loss-not-weighed-by-the-gate/seed-1/recipe.toml --out results/ablations/memory-loss-not-weighed-by-the-gate/seed-1/run --resume
fwpkm eval needles results/ablations/memory-loss-not-weighed-by-the-gate/seed-1/run/model --text corpus --name 'memory loss not weighed by the gate' --out results/ablations/memory-loss-not-weighed-by-the-gate/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/memory-loss-not-weighed-by-the-gate/seed-1/run/model --text corpus --name 'memory loss not weighed by the gate' --out results/ablations/memory-loss-not-weighed-by-the-gate/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/memory-loss-not-weighed-by-the-gate/seed-1/run/model --text corpus --name 'memory loss not weighed by the gate' --out results/ablations/memory-loss-not-weighed-by-the-gate/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/answers-weigh-1/seed-1/recipe.toml --out results/ablations/answers-weigh-1/seed-1/run --resume
fwpkm eval needles results/ablations/answers-weigh-1/seed-1/run/model --text corpus --name 'answers weigh 1' --out results/ablations/answers-weigh-1/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/answers-weigh-1/seed-1/run/model --text corpus --name 'answers weigh 1' --out results/ablations/answers-weigh-1/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/answers-weigh-1/seed-1/run/model --text corpus --name 'answers weigh 1' --out results/ablations/answers-weigh-1/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/no-gate/seed-1/recipe.toml --out results/ablations/no-gate/seed-1/run --resume
fwpkm eval needles results/ablations/no-gate/seed-1/run/model --text corpus --name 'no gate' --out results/ablations/no-gate/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/no-gate/seed-1/run/model --text corpus --name 'no gate' --out results/ablations/no-gate/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/no-gate/seed-1/run/model --text corpus --name 'no gate' --out results/ablations/no-gate/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/open-gates-cost-nothing/seed-1/recipe.toml --out results/ablations/open-gates-cost-nothing/seed-1/run --resume
fwpkm eval needles results/ablations/open-gates-cost-nothing/seed-1/run/model --text corpus --name 'open gates cost nothing' --out results/ablations/open-gates-cost-nothing/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/open-gates-cost-nothing/seed-1/run/model --text corpus --name 'open gates cost nothing' --out results/ablations/open-gates-cost-nothing/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/open-gates-cost-nothing/seed-1/run/model --text corpus --name 'open gates cost nothing' --out results/ablations/open-gates-cost-nothing/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/open-gates-of-both-memories-cost-0-03/seed-1/recipe.toml --out results/ablations/open-gates-of-both-memories-cost-0-03/seed-1/run --resume
fwpkm eval needles results/ablations/open-gates-of-both-memories-cost-0-03/seed-1/run/model --text corpus --name 'open gates of both memories cost 0.03' --out results/ablations/open-gates-of-both-memories-cost-0-03/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/open-gates-of-both-memories-cost-0-03/seed-1/run/model --text corpus --name 'open gates of both memories cost 0.03' --out results/ablations/open-gates-of-both-memories-cost-0-03/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/open-gates-of-both-memories-cost-0-03/seed-1/run/model --text corpus --name 'open gates of both memories cost 0.03' --out results/ablations/open-gates-of-both-memories-cost-0-03/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/queries-not-aligned/seed-1/recipe.toml --out results/ablations/queries-not-aligned/seed-1/run --resume
fwpkm eval needles results/ablations/queries-not-aligned/seed-1/run/model --text corpus --name 'queries not aligned' --out results/ablations/queries-not-aligned/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/queries-not-aligned/seed-1/run/model --text corpus --name 'queries not aligned' --out results/ablations/queries-not-aligned/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/queries-not-aligned/seed-1/run/model --text corpus --name 'queries not aligned' --out results/ablations/queries-not-aligned/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/queries-aligned-x-10/seed-1/recipe.toml --out results/ablations/queries-aligned-x-10/seed-1/run --resume
fwpkm eval needles results/ablations/queries-aligned-x-10/seed-1/run/model --text corpus --name 'queries aligned x 10' --out results/ablations/queries-aligned-x-10/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/queries-aligned-x-10/seed-1/run/model --text corpus --name 'queries aligned x 10' --out results/ablations/queries-aligned-x-10/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/queries-aligned-x-10/seed-1/run/model --text corpus --name 'queries aligned x 10' --out results/ablations/queries-aligned-x-10/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/queries-aligned-after-the-same-6-bytes/seed-1/recipe.toml --out results/ablations/queries-aligned-after-the-same-6-bytes/seed-1/run --resume
fwpkm eval needles results/ablations/queries-aligned-after-the-same-6-bytes/seed-1/run/model --text corpus --name 'queries aligned after the same 6 bytes' --out results/ablations/queries-aligned-after-the-same-6-bytes/seed-1/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/queries-aligned-after-the-same-6-bytes/seed-1/run/model --text corpus --name 'queries aligned after the same 6 bytes' --out results/ablations/queries-aligned-after-the-same-6-bytes/seed-1/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/queries-aligned-after-the-same-6-bytes/seed-1/run/model --text corpus --name 'queries aligned after the same 6 bytes' --out results/ablations/queries-aligned-after-the-same-6-bytes/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/as-it-is/seed-2/recipe.toml --out results/ablations/as-it-is/seed-2/run --resume
fwpkm eval needles results/ablations/as-it-is/seed-2/run/model --text corpus --name 'as it is' --out results/ablations/as-it-is/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/as-it-is/seed-2/run/model --text corpus --name 'as it is' --out results/ablations/as-it-is/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/as-it-is/seed-2/run/model --text corpus --name 'as it is' --out results/ablations/as-it-is/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/temperature-1-fixed/seed-2/recipe.toml --out results/ablations/temperature-1-fixed/seed-2/run --resume
fwpkm eval needles results/ablations/temperature-1-fixed/seed-2/run/model --text corpus --name 'temperature 1, fixed' --out results/ablations/temperature-1-fixed/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/temperature-1-fixed/seed-2/run/model --text corpus --name 'temperature 1, fixed' --out results/ablations/temperature-1-fixed/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/temperature-1-fixed/seed-2/run/model --text corpus --name 'temperature 1, fixed' --out results/ablations/temperature-1-fixed/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/temperature-1-learned/seed-2/recipe.toml --out results/ablations/temperature-1-learned/seed-2/run --resume
fwpkm eval needles results/ablations/temperature-1-learned/seed-2/run/model --text corpus --name 'temperature 1, learned' --out results/ablations/temperature-1-learned/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/temperature-1-learned/seed-2/run/model --text corpus --name 'temperature 1, learned' --out results/ablations/temperature-1-learned/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/temperature-1-learned/seed-2/run/model --text corpus --name 'temperature 1, learned' --out results/ablations/temperature-1-learned/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/temperature-0-25-fixed/seed-2/recipe.toml --out results/ablations/temperature-0-25-fixed/seed-2/run --resume
fwpkm eval needles results/ablations/temperature-0-25-fixed/seed-2/run/model --text corpus --name 'temperature 0.25, fixed' --out results/ablations/temperature-0-25-fixed/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/temperature-0-25-fixed/seed-2/run/model --text corpus --name 'temperature 0.25, fixed' --out results/ablations/temperature-0-25-fixed/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/temperature-0-25-fixed/seed-2/run/model --text corpus --name 'temperature 0.25, fixed' --out results/ablations/temperature-0-25-fixed/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/sub-keys-uniform-as-in-the-release/seed-2/recipe.toml --out results/ablations/sub-keys-uniform-as-in-the-release/seed-2/run --resume
fwpkm eval needles results/ablations/sub-keys-uniform-as-in-the-release/seed-2/run/model --text corpus --name 'sub-keys uniform, as in the release' --out results/ablations/sub-keys-uniform-as-in-the-release/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/sub-keys-uniform-as-in-the-release/seed-2/run/model --text corpus --name 'sub-keys uniform, as in the release' --out results/ablations/sub-keys-uniform-as-in-the-release/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/sub-keys-uniform-as-in-the-release/seed-2/run/model --text corpus --name 'sub-keys uniform, as in the release' --out results/ablations/sub-keys-uniform-as-in-the-release/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/sub-keys-with-deviation-0-3/seed-2/recipe.toml --out results/ablations/sub-keys-with-deviation-0-3/seed-2/run --resume
fwpkm eval needles results/ablations/sub-keys-with-deviation-0-3/seed-2/run/model --text corpus --name 'sub-keys with deviation 0.3' --out results/ablations/sub-keys-with-deviation-0-3/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/sub-keys-with-deviation-0-3/seed-2/run/model --text corpus --name 'sub-keys with deviation 0.3' --out results/ablations/sub-keys-with-deviation-0-3/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/sub-keys-with-deviation-0-3/seed-2/run/model --text corpus --name 'sub-keys with deviation 0.3' --out results/ablations/sub-keys-with-deviation-0-3/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/sub-keys-with-deviation-3/seed-2/recipe.toml --out results/ablations/sub-keys-with-deviation-3/seed-2/run --resume
fwpkm eval needles results/ablations/sub-keys-with-deviation-3/seed-2/run/model --text corpus --name 'sub-keys with deviation 3' --out results/ablations/sub-keys-with-deviation-3/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/sub-keys-with-deviation-3/seed-2/run/model --text corpus --name 'sub-keys with deviation 3' --out results/ablations/sub-keys-with-deviation-3/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/sub-keys-with-deviation-3/seed-2/run/model --text corpus --name 'sub-keys with deviation 3' --out results/ablations/sub-keys-with-deviation-3/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/queries-as-they-come/seed-2/recipe.toml --out results/ablations/queries-as-they-come/seed-2/run --resume
fwpkm eval needles results/ablations/queries-as-they-come/seed-2/run/model --text corpus --name 'queries as they come' --out results/ablations/queries-as-they-come/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/queries-as-they-come/seed-2/run/model --text corpus --name 'queries as they come' --out results/ablations/queries-as-they-come/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/queries-as-they-come/seed-2/run/model --text corpus --name 'queries as they come' --out results/ablations/queries-as-they-come/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/write-rule-paper/seed-2/recipe.toml --out results/ablations/write-rule-paper/seed-2/run --resume
fwpkm eval needles results/ablations/write-rule-paper/seed-2/run/model --text corpus --name 'write rule: paper' --out results/ablations/write-rule-paper/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/write-rule-paper/seed-2/run/model --text corpus --name 'write rule: paper' --out results/ablations/write-rule-paper/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/write-rule-paper/seed-2/run/model --text corpus --name 'write rule: paper' --out results/ablations/write-rule-paper/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/write-rule-release/seed-2/recipe.toml --out results/ablations/write-rule-release/seed-2/run --resume
fwpkm eval needles results/ablations/write-rule-release/seed-2/run/model --text corpus --name 'write rule: release' --out results/ablations/write-rule-release/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/write-rule-release/seed-2/run/model --text corpus --name 'write rule: release' --out results/ablations/write-rule-release/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/write-rule-release/seed-2/run/model --text corpus --name 'write rule: release' --out results/ablations/write-rule-release/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/pairs-across-borders-dropped/seed-2/recipe.toml --out results/ablations/pairs-across-borders-dropped/seed-2/run --resume
fwpkm eval needles results/ablations/pairs-across-borders-dropped/seed-2/run/model --text corpus --name 'pairs across borders dropped' --out results/ablations/pairs-across-borders-dropped/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/pairs-across-borders-dropped/seed-2/run/model --text corpus --name 'pairs across borders dropped' --out results/ablations/pairs-across-borders-dropped/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/pairs-across-borders-dropped/seed-2/run/model --text corpus --name 'pairs across borders dropped' --out results/ablations/pairs-across-borders-dropped/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/one-table-for-the-batch/seed-2/recipe.toml --out results/ablations/one-table-for-the-batch/seed-2/run --resume
fwpkm eval needles results/ablations/one-table-for-the-batch/seed-2/run/model --text corpus --name 'one table for the batch' --out results/ablations/one-table-for-the-batch/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/one-table-for-the-batch/seed-2/run/model --text corpus --name 'one table for the batch' --out results/ablations/one-table-for-the-batch/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/one-table-for-the-batch/seed-2/run/model --text corpus --name 'one table for the batch' --out results/ablations/one-table-for-the-batch/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/carried-through-documents-without-recall-tasks/seed-2/recipe.toml --out results/ablations/carried-through-documents-without-recall-tasks/seed-2/run --resume
fwpkm eval needles results/ablations/carried-through-documents-without-recall-tasks/seed-2/run/model --text corpus --name 'carried through documents, without recall tasks' --out results/ablations/carried-through-documents-without-recall-tasks/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/carried-through-documents-without-recall-tasks/seed-2/run/model --text corpus --name 'carried through documents, without recall tasks' --out results/ablations/carried-through-documents-without-recall-tasks/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/carried-through-documents-without-recall-tasks/seed-2/run/model --text corpus --name 'carried through documents, without recall tasks' --out results/ablations/carried-through-documents-without-recall-tasks/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/fresh-without-recall-tasks/seed-2/recipe.toml --out results/ablations/fresh-without-recall-tasks/seed-2/run --resume
fwpkm eval needles results/ablations/fresh-without-recall-tasks/seed-2/run/model --text corpus --name 'fresh, without recall tasks' --out results/ablations/fresh-without-recall-tasks/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/fresh-without-recall-tasks/seed-2/run/model --text corpus --name 'fresh, without recall tasks' --out results/ablations/fresh-without-recall-tasks/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/fresh-without-recall-tasks/seed-2/run/model --text corpus --name 'fresh, without recall tasks' --out results/ablations/fresh-without-recall-tasks/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/lookahead-0/seed-2/recipe.toml --out results/ablations/lookahead-0/seed-2/run --resume
fwpkm eval needles results/ablations/lookahead-0/seed-2/run/model --text corpus --name 'lookahead 0' --out results/ablations/lookahead-0/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/lookahead-0/seed-2/run/model --text corpus --name 'lookahead 0' --out results/ablations/lookahead-0/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/lookahead-0/seed-2/run/model --text corpus --name 'lookahead 0' --out results/ablations/lookahead-0/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/lookahead-2/seed-2/recipe.toml --out results/ablations/lookahead-2/seed-2/run --resume
fwpkm eval needles results/ablations/lookahead-2/seed-2/run/model --text corpus --name 'lookahead 2' --out results/ablations/lookahead-2/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/lookahead-2/seed-2/run/model --text corpus --name 'lookahead 2' --out results/ablations/lookahead-2/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/lookahead-2/seed-2/run/model --text corpus --name 'lookahead 2' --out results/ablations/lookahead-2/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/4-slots/seed-2/recipe.toml --out results/ablations/4-slots/seed-2/run --resume
fwpkm eval needles results/ablations/4-slots/seed-2/run/model --text corpus --name '4 slots' --out results/ablations/4-slots/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/4-slots/seed-2/run/model --text corpus --name '4 slots' --out results/ablations/4-slots/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/4-slots/seed-2/run/model --text corpus --name '4 slots' --out results/ablations/4-slots/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/16-slots/seed-2/recipe.toml --out results/ablations/16-slots/seed-2/run --resume
fwpkm eval needles results/ablations/16-slots/seed-2/run/model --text corpus --name '16 slots' --out results/ablations/16-slots/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/16-slots/seed-2/run/model --text corpus --name '16 slots' --out results/ablations/16-slots/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/16-slots/seed-2/run/model --text corpus --name '16 slots' --out results/ablations/16-slots/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/1-head-32-slots/seed-2/recipe.toml --out results/ablations/1-head-32-slots/seed-2/run --resume
fwpkm eval needles results/ablations/1-head-32-slots/seed-2/run/model --text corpus --name '1 head, 32 slots' --out results/ablations/1-head-32-slots/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/1-head-32-slots/seed-2/run/model --text corpus --name '1 head, 32 slots' --out results/ablations/1-head-32-slots/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/1-head-32-slots/seed-2/run/model --text corpus --name '1 head, 32 slots' --out results/ablations/1-head-32-slots/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/4-heads-of-8-slots/seed-2/recipe.toml --out results/ablations/4-heads-of-8-slots/seed-2/run --resume
fwpkm eval needles results/ablations/4-heads-of-8-slots/seed-2/run/model --text corpus --name '4 heads of 8 slots' --out results/ablations/4-heads-of-8-slots/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/4-heads-of-8-slots/seed-2/run/model --text corpus --name '4 heads of 8 slots' --out results/ablations/4-heads-of-8-slots/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/4-heads-of-8-slots/seed-2/run/model --text corpus --name '4 heads of 8 slots' --out results/ablations/4-heads-of-8-slots/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/values-as-they-come/seed-2/recipe.toml --out results/ablations/values-as-they-come/seed-2/run --resume
fwpkm eval needles results/ablations/values-as-they-come/seed-2/run/model --text corpus --name 'values as they come' --out results/ablations/values-as-they-come/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/values-as-they-come/seed-2/run/model --text corpus --name 'values as they come' --out results/ablations/values-as-they-come/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/values-as-they-come/seed-2/run/model --text corpus --name 'values as they come' --out results/ablations/values-as-they-come/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/addressing-loss-x-0-1/seed-2/recipe.toml --out results/ablations/addressing-loss-x-0-1/seed-2/run --resume
fwpkm eval needles results/ablations/addressing-loss-x-0-1/seed-2/run/model --text corpus --name 'addressing loss x 0.1' --out results/ablations/addressing-loss-x-0-1/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/addressing-loss-x-0-1/seed-2/run/model --text corpus --name 'addressing loss x 0.1' --out results/ablations/addressing-loss-x-0-1/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/addressing-loss-x-0-1/seed-2/run/model --text corpus --name 'addressing loss x 0.1' --out results/ablations/addressing-loss-x-0-1/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/addressing-loss-x-10/seed-2/recipe.toml --out results/ablations/addressing-loss-x-10/seed-2/run --resume
fwpkm eval needles results/ablations/addressing-loss-x-10/seed-2/run/model --text corpus --name 'addressing loss x 10' --out results/ablations/addressing-loss-x-10/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/addressing-loss-x-10/seed-2/run/model --text corpus --name 'addressing loss x 10' --out results/ablations/addressing-loss-x-10/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/addressing-loss-x-10/seed-2/run/model --text corpus --name 'addressing loss x 10' --out results/ablations/addressing-loss-x-10/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/no-addressing-loss/seed-2/recipe.toml --out results/ablations/no-addressing-loss/seed-2/run --resume
fwpkm eval needles results/ablations/no-addressing-loss/seed-2/run/model --text corpus --name 'no addressing loss' --out results/ablations/no-addressing-loss/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/no-addressing-loss/seed-2/run/model --text corpus --name 'no addressing loss' --out results/ablations/no-addressing-loss/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/no-addressing-loss/seed-2/run/model --text corpus --name 'no addressing loss' --out results/ablations/no-addressing-loss/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/memory-loss-not-weighed-by-the-gate/seed-2/recipe.toml --out results/ablations/memory-loss-not-weighed-by-the-gate/seed-2/run --resume
fwpkm eval needles results/ablations/memory-loss-not-weighed-by-the-gate/seed-2/run/model --text corpus --name 'memory loss not weighed by the gate' --out results/ablations/memory-loss-not-weighed-by-the-gate/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/memory-loss-not-weighed-by-the-gate/seed-2/run/model --text corpus --name 'memory loss not weighed by the gate' --out results/ablations/memory-loss-not-weighed-by-the-gate/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/memory-loss-not-weighed-by-the-gate/seed-2/run/model --text corpus --name 'memory loss not weighed by the gate' --out results/ablations/memory-loss-not-weighed-by-the-gate/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/answers-weigh-1/seed-2/recipe.toml --out results/ablations/answers-weigh-1/seed-2/run --resume
fwpkm eval needles results/ablations/answers-weigh-1/seed-2/run/model --text corpus --name 'answers weigh 1' --out results/ablations/answers-weigh-1/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/answers-weigh-1/seed-2/run/model --text corpus --name 'answers weigh 1' --out results/ablations/answers-weigh-1/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/answers-weigh-1/seed-2/run/model --text corpus --name 'answers weigh 1' --out results/ablations/answers-weigh-1/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/no-gate/seed-2/recipe.toml --out results/ablations/no-gate/seed-2/run --resume
fwpkm eval needles results/ablations/no-gate/seed-2/run/model --text corpus --name 'no gate' --out results/ablations/no-gate/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/no-gate/seed-2/run/model --text corpus --name 'no gate' --out results/ablations/no-gate/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/no-gate/seed-2/run/model --text corpus --name 'no gate' --out results/ablations/no-gate/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/open-gates-cost-nothing/seed-2/recipe.toml --out results/ablations/open-gates-cost-nothing/seed-2/run --resume
fwpkm eval needles results/ablations/open-gates-cost-nothing/seed-2/run/model --text corpus --name 'open gates cost nothing' --out results/ablations/open-gates-cost-nothing/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/open-gates-cost-nothing/seed-2/run/model --text corpus --name 'open gates cost nothing' --out results/ablations/open-gates-cost-nothing/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/open-gates-cost-nothing/seed-2/run/model --text corpus --name 'open gates cost nothing' --out results/ablations/open-gates-cost-nothing/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/open-gates-of-both-memories-cost-0-03/seed-2/recipe.toml --out results/ablations/open-gates-of-both-memories-cost-0-03/seed-2/run --resume
fwpkm eval needles results/ablations/open-gates-of-both-memories-cost-0-03/seed-2/run/model --text corpus --name 'open gates of both memories cost 0.03' --out results/ablations/open-gates-of-both-memories-cost-0-03/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/open-gates-of-both-memories-cost-0-03/seed-2/run/model --text corpus --name 'open gates of both memories cost 0.03' --out results/ablations/open-gates-of-both-memories-cost-0-03/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/open-gates-of-both-memories-cost-0-03/seed-2/run/model --text corpus --name 'open gates of both memories cost 0.03' --out results/ablations/open-gates-of-both-memories-cost-0-03/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/queries-not-aligned/seed-2/recipe.toml --out results/ablations/queries-not-aligned/seed-2/run --resume
fwpkm eval needles results/ablations/queries-not-aligned/seed-2/run/model --text corpus --name 'queries not aligned' --out results/ablations/queries-not-aligned/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/queries-not-aligned/seed-2/run/model --text corpus --name 'queries not aligned' --out results/ablations/queries-not-aligned/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/queries-not-aligned/seed-2/run/model --text corpus --name 'queries not aligned' --out results/ablations/queries-not-aligned/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/queries-aligned-x-10/seed-2/recipe.toml --out results/ablations/queries-aligned-x-10/seed-2/run --resume
fwpkm eval needles results/ablations/queries-aligned-x-10/seed-2/run/model --text corpus --name 'queries aligned x 10' --out results/ablations/queries-aligned-x-10/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/queries-aligned-x-10/seed-2/run/model --text corpus --name 'queries aligned x 10' --out results/ablations/queries-aligned-x-10/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/queries-aligned-x-10/seed-2/run/model --text corpus --name 'queries aligned x 10' --out results/ablations/queries-aligned-x-10/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/ablations/queries-aligned-after-the-same-6-bytes/seed-2/recipe.toml --out results/ablations/queries-aligned-after-the-same-6-bytes/seed-2/run --resume
fwpkm eval needles results/ablations/queries-aligned-after-the-same-6-bytes/seed-2/run/model --text corpus --name 'queries aligned after the same 6 bytes' --out results/ablations/queries-aligned-after-the-same-6-bytes/seed-2/needles-512.json --lengths 512 --reads 1
fwpkm eval needles results/ablations/queries-aligned-after-the-same-6-bytes/seed-2/run/model --text corpus --name 'queries aligned after the same 6 bytes' --out results/ablations/queries-aligned-after-the-same-6-bytes/seed-2/needles-4096.json --lengths 4096 --reads 1
fwpkm eval perplexity results/ablations/queries-aligned-after-the-same-6-bytes/seed-2/run/model --text corpus --name 'queries aligned after the same 6 bytes' --out results/ablations/queries-aligned-after-the-same-6-bytes/seed-2/perplexity.json --length 8192 --max-runs 8
