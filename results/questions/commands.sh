#!/bin/sh -e
fwpkm train results/questions/swa-fwpkm/seed-0/recipe.toml --out results/questions/swa-fwpkm/seed-0/run --resume
fwpkm eval needles results/questions/swa-fwpkm/seed-0/run/model --text corpus --name 'SWA + FwPKM' --out results/questions/swa-fwpkm/seed-0/needles-512.json --lengths 512
fwpkm eval needles results/questions/swa-fwpkm/seed-0/run/model --text corpus --name 'SWA + FwPKM' --out results/questions/swa-fwpkm/seed-0/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/swa-fwpkm/seed-0/run/model --text corpus --name 'SWA + FwPKM' --out results/questions/swa-fwpkm/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/swa-fwpkm/seed-0/run/model --text corpus --name 'SWA + FwPKM' --out results/questions/swa-fwpkm/seed-0/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/swa/seed-0/recipe.toml --out results/questions/swa/seed-0/run --resume
fwpkm eval needles results/questions/swa/seed-0/run/model --text corpus --name SWA --out results/questions/swa/seed-0/needles-512.json --lengths 512
fwpkm eval perplexity results/questions/swa/seed-0/run/model --text corpus --name SWA --out results/questions/swa/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/questions/gdn-fwpkm/seed-0/recipe.toml --out results/questions/gdn-fwpkm/seed-0/run --resume
fwpkm eval needles results/questions/gdn-fwpkm/seed-0/run/model --text corpus --name 'GDN + FwPKM' --out results/questions/gdn-fwpkm/seed-0/needles-512.json --lengths 512
fwpkm eval needles results/questions/gdn-fwpkm/seed-0/run/model --text corpus --name 'GDN + FwPKM' --out results/questions/gdn-fwpkm/seed-0/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/gdn-fwpkm/seed-0/run/model --text corpus --name 'GDN + FwPKM' --out results/questions/gdn-fwpkm/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/gdn-fwpkm/seed-0/run/model --text corpus --name 'GDN + FwPKM' --out results/questions/gdn-fwpkm/seed-0/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/gdn/seed-0/recipe.toml --out results/questions/gdn/seed-0/run --resume
fwpkm eval needles results/questions/gdn/seed-0/run/model --text corpus --name GDN --out results/questions/gdn/seed-0/needles-512.json --lengths 512
fwpkm eval perplexity results/questions/gdn/seed-0/run/model --text corpus --name GDN --out results/questions/gdn/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/questions/swa-gdn-fwpkm/seed-0/recipe.toml --out results/questions/swa-gdn-fwpkm/seed-0/run --resume
fwpkm eval needles results/questions/swa-gdn-fwpkm/seed-0/run/model --text corpus --name 'SWA+GDN + FwPKM' --out results/questions/swa-gdn-fwpkm/seed-0/needles-512.json --lengths 512
fwpkm eval needles results/questions/swa-gdn-fwpkm/seed-0/run/model --text corpus --name 'SWA+GDN + FwPKM' --out results/questions/swa-gdn-fwpkm/seed-0/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/swa-gdn-fwpkm/seed-0/run/model --text corpus --name 'SWA+GDN + FwPKM' --out results/questions/swa-gdn-fwpkm/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/swa-gdn-fwpkm/seed-0/run/model --text corpus --name 'SWA+GDN + FwPKM' --out results/questions/swa-gdn-fwpkm/seed-0/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/swa-gdn/seed-0/recipe.toml --out results/questions/swa-gdn/seed-0/run --resume
fwpkm eval needles results/questions/swa-gdn/seed-0/run/model --text corpus --name SWA+GDN --out results/questions/swa-gdn/seed-0/needles-512.json --lengths 512
fwpkm eval perplexity results/questions/swa-gdn/seed-0/run/model --text corpus --name SWA+GDN --out results/questions/swa-gdn/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/questions/fa-fwpkm-queries-not-aligned/seed-0/recipe.toml --out results/questions/fa-fwpkm-queries-not-aligned/seed-0/run --resume
fwpkm eval needles results/questions/fa-fwpkm-queries-not-aligned/seed-0/run/model --text corpus --name 'FA + FwPKM, queries not aligned' --out results/questions/fa-fwpkm-queries-not-aligned/seed-0/needles-512.json --lengths 512
fwpkm eval needles results/questions/fa-fwpkm-queries-not-aligned/seed-0/run/model --text corpus --name 'FA + FwPKM, queries not aligned' --out results/questions/fa-fwpkm-queries-not-aligned/seed-0/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/fa-fwpkm-queries-not-aligned/seed-0/run/model --text corpus --name 'FA + FwPKM, queries not aligned' --out results/questions/fa-fwpkm-queries-not-aligned/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/fa-fwpkm-queries-not-aligned/seed-0/run/model --text corpus --name 'FA + FwPKM, queries not aligned' --out results/questions/fa-fwpkm-queries-not-aligned/seed-0/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/fa/seed-0/recipe.toml --out results/questions/fa/seed-0/run --resume
fwpkm eval needles results/questions/fa/seed-0/run/model --text corpus --name FA --out results/questions/fa/seed-0/needles-512.json --lengths 512
fwpkm eval perplexity results/questions/fa/seed-0/run/model --text corpus --name FA --out results/questions/fa/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/questions/fa-fwpkm-queries-aligned/seed-0/recipe.toml --out results/questions/fa-fwpkm-queries-aligned/seed-0/run --resume
fwpkm eval needles results/questions/fa-fwpkm-queries-aligned/seed-0/run/model --text corpus --name 'FA + FwPKM, queries aligned' --out results/questions/fa-fwpkm-queries-aligned/seed-0/needles-512.json --lengths 512
fwpkm eval needles results/questions/fa-fwpkm-queries-aligned/seed-0/run/model --text corpus --name 'FA + FwPKM, queries aligned' --out results/questions/fa-fwpkm-queries-aligned/seed-0/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/fa-fwpkm-queries-aligned/seed-0/run/model --text corpus --name 'FA + FwPKM, queries aligned' --out results/questions/fa-fwpkm-queries-aligned/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/fa-fwpkm-queries-aligned/seed-0/run/model --text corpus --name 'FA + FwPKM, queries aligned' --out results/questions/fa-fwpkm-queries-aligned/seed-0/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-0/recipe.toml --out results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-0/run --resume
fwpkm eval needles results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-0/run/model --text corpus --name 'FA + FwPKM, narrowed while training (pSWA)' --out results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-0/needles-512.json --lengths 512
fwpkm eval needles results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-0/run/model --text corpus --name 'FA + FwPKM, narrowed while training (pSWA)' --out results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-0/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-0/run/model --text corpus --name 'FA + FwPKM, narrowed while training (pSWA)' --out results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-0/run/model --text corpus --name 'FA + FwPKM, narrowed while training (pSWA)' --out results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-0/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/fa-fwpkm-narrowed-and-aligned/seed-0/recipe.toml --out results/questions/fa-fwpkm-narrowed-and-aligned/seed-0/run --resume
fwpkm eval needles results/questions/fa-fwpkm-narrowed-and-aligned/seed-0/run/model --text corpus --name 'FA + FwPKM, narrowed and aligned' --out results/questions/fa-fwpkm-narrowed-and-aligned/seed-0/needles-512.json --lengths 512
fwpkm eval needles results/questions/fa-fwpkm-narrowed-and-aligned/seed-0/run/model --text corpus --name 'FA + FwPKM, narrowed and aligned' --out results/questions/fa-fwpkm-narrowed-and-aligned/seed-0/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/fa-fwpkm-narrowed-and-aligned/seed-0/run/model --text corpus --name 'FA + FwPKM, narrowed and aligned' --out results/questions/fa-fwpkm-narrowed-and-aligned/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/fa-fwpkm-narrowed-and-aligned/seed-0/run/model --text corpus --name 'FA + FwPKM, narrowed and aligned' --out results/questions/fa-fwpkm-narrowed-and-aligned/seed-0/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/fa-fwpkm-open-gates-cost-nothing/seed-0/recipe.toml --out results/questions/fa-fwpkm-open-gates-cost-nothing/seed-0/run --resume
fwpkm eval needles results/questions/fa-fwpkm-open-gates-cost-nothing/seed-0/run/model --text corpus --name 'FA + FwPKM, open gates cost nothing' --out results/questions/fa-fwpkm-open-gates-cost-nothing/seed-0/needles-512.json --lengths 512
fwpkm eval needles results/questions/fa-fwpkm-open-gates-cost-nothing/seed-0/run/model --text corpus --name 'FA + FwPKM, open gates cost nothing' --out results/questions/fa-fwpkm-open-gates-cost-nothing/seed-0/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/fa-fwpkm-open-gates-cost-nothing/seed-0/run/model --text corpus --name 'FA + FwPKM, open gates cost nothing' --out results/questions/fa-fwpkm-open-gates-cost-nothing/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/fa-fwpkm-open-gates-cost-nothing/seed-0/run/model --text corpus --name 'FA + FwPKM, open gates cost nothing' --out results/questions/fa-fwpkm-open-gates-cost-nothing/seed-0/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-0/recipe.toml --out results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-0/run --resume
fwpkm eval needles results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-0/run/model --text corpus --name 'FA + FwPKM, the last layer alone sees everything' --out results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-0/needles-512.json --lengths 512
fwpkm eval needles results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-0/run/model --text corpus --name 'FA + FwPKM, the last layer alone sees everything' --out results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-0/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-0/run/model --text corpus --name 'FA + FwPKM, the last layer alone sees everything' --out results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-0/run/model --text corpus --name 'FA + FwPKM, the last layer alone sees everything' --out results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-0/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/swa-fwpkm-width-64/seed-0/recipe.toml --out results/questions/swa-fwpkm-width-64/seed-0/run --resume
fwpkm eval needles results/questions/swa-fwpkm-width-64/seed-0/run/model --text corpus --name 'SWA + FwPKM, width 64' --out results/questions/swa-fwpkm-width-64/seed-0/needles-512.json --lengths 512
fwpkm eval needles results/questions/swa-fwpkm-width-64/seed-0/run/model --text corpus --name 'SWA + FwPKM, width 64' --out results/questions/swa-fwpkm-width-64/seed-0/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/swa-fwpkm-width-64/seed-0/run/model --text corpus --name 'SWA + FwPKM, width 64' --out results/questions/swa-fwpkm-width-64/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/swa-fwpkm-width-64/seed-0/run/model --text corpus --name 'SWA + FwPKM, width 64' --out results/questions/swa-fwpkm-width-64/seed-0/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/swa-width-64/seed-0/recipe.toml --out results/questions/swa-width-64/seed-0/run --resume
fwpkm eval needles results/questions/swa-width-64/seed-0/run/model --text corpus --name 'SWA, width 64' --out results/questions/swa-width-64/seed-0/needles-512.json --lengths 512
fwpkm eval perplexity results/questions/swa-width-64/seed-0/run/model --text corpus --name 'SWA, width 64' --out results/questions/swa-width-64/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/questions/swa-fwpkm-width-256/seed-0/recipe.toml --out results/questions/swa-fwpkm-width-256/seed-0/run --resume
fwpkm eval needles results/questions/swa-fwpkm-width-256/seed-0/run/model --text corpus --name 'SWA + FwPKM, width 256' --out results/questions/swa-fwpkm-width-256/seed-0/needles-512.json --lengths 512
fwpkm eval needles results/questions/swa-fwpkm-width-256/seed-0/run/model --text corpus --name 'SWA + FwPKM, width 256' --out results/questions/swa-fwpkm-width-256/seed-0/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/swa-fwpkm-width-256/seed-0/run/model --text corpus --name 'SWA + FwPKM, width 256' --out results/questions/swa-fwpkm-width-256/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/swa-fwpkm-width-256/seed-0/run/model --text corpus --name 'SWA + FwPKM, width 256' --out results/questions/swa-fwpkm-width-256/seed-0/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/swa-width-256/seed-0/recipe.toml --out results/questions/swa-width-256/seed-0/run --resume
fwpkm eval needles results/questions/swa-width-256/seed-0/run/model --text corpus --name 'SWA, width 256' --out results/questions/swa-width-256/seed-0/needles-512.json --lengths 512
fwpkm eval perplexity results/questions/swa-width-256/seed-0/run/model --text corpus --name 'SWA, width 256' --out results/questions/swa-width-256/seed-0/perplexity.json --length 8192 --max-runs 8
fwpkm train results/questions/swa-fwpkm/seed-1/recipe.toml --out results/questions/swa-fwpkm/seed-1/run --resume
fwpkm eval needles results/questions/swa-fwpkm/seed-1/run/model --text corpus --name 'SWA + FwPKM' --out results/questions/swa-fwpkm/seed-1/needles-512.json --lengths 512
fwpkm eval needles results/questions/swa-fwpkm/seed-1/run/model --text corpus --name 'SWA + FwPKM' --out results/questions/swa-fwpkm/seed-1/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/swa-fwpkm/seed-1/run/model --text corpus --name 'SWA + FwPKM' --out results/questions/swa-fwpkm/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/swa-fwpkm/seed-1/run/model --text corpus --name 'SWA + FwPKM' --out results/questions/swa-fwpkm/seed-1/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/swa/seed-1/recipe.toml --out results/questions/swa/seed-1/run --resume
fwpkm eval needles results/questions/swa/seed-1/run/model --text corpus --name SWA --out results/questions/swa/seed-1/needles-512.json --lengths 512
fwpkm eval perplexity results/questions/swa/seed-1/run/model --text corpus --name SWA --out results/questions/swa/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/questions/gdn-fwpkm/seed-1/recipe.toml --out results/questions/gdn-fwpkm/seed-1/run --resume
fwpkm eval needles results/questions/gdn-fwpkm/seed-1/run/model --text corpus --name 'GDN + FwPKM' --out results/questions/gdn-fwpkm/seed-1/needles-512.json --lengths 512
fwpkm eval needles results/questions/gdn-fwpkm/seed-1/run/model --text corpus --name 'GDN + FwPKM' --out results/questions/gdn-fwpkm/seed-1/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/gdn-fwpkm/seed-1/run/model --text corpus --name 'GDN + FwPKM' --out results/questions/gdn-fwpkm/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/gdn-fwpkm/seed-1/run/model --text corpus --name 'GDN + FwPKM' --out results/questions/gdn-fwpkm/seed-1/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/gdn/seed-1/recipe.toml --out results/questions/gdn/seed-1/run --resume
fwpkm eval needles results/questions/gdn/seed-1/run/model --text corpus --name GDN --out results/questions/gdn/seed-1/needles-512.json --lengths 512
fwpkm eval perplexity results/questions/gdn/seed-1/run/model --text corpus --name GDN --out results/questions/gdn/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/questions/swa-gdn-fwpkm/seed-1/recipe.toml --out results/questions/swa-gdn-fwpkm/seed-1/run --resume
fwpkm eval needles results/questions/swa-gdn-fwpkm/seed-1/run/model --text corpus --name 'SWA+GDN + FwPKM' --out results/questions/swa-gdn-fwpkm/seed-1/needles-512.json --lengths 512
fwpkm eval needles results/questions/swa-gdn-fwpkm/seed-1/run/model --text corpus --name 'SWA+GDN + FwPKM' --out results/questions/swa-gdn-fwpkm/seed-1/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/swa-gdn-fwpkm/seed-1/run/model --text corpus --name 'SWA+GDN + FwPKM' --out results/questions/swa-gdn-fwpkm/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/swa-gdn-fwpkm/seed-1/run/model --text corpus --name 'SWA+GDN + FwPKM' --out results/questions/swa-gdn-fwpkm/seed-1/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/swa-gdn/seed-1/recipe.toml --out results/questions/swa-gdn/seed-1/run --resume
fwpkm eval needles results/questions/swa-gdn/seed-1/run/model --text corpus --name SWA+GDN --out results/questions/swa-gdn/seed-1/needles-512.json --lengths 512
fwpkm eval perplexity results/questions/swa-gdn/seed-1/run/model --text corpus --name SWA+GDN --out results/questions/swa-gdn/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/questions/fa-fwpkm-queries-not-aligned/seed-1/recipe.toml --out results/questions/fa-fwpkm-queries-not-aligned/seed-1/run --resume
fwpkm eval needles results/questions/fa-fwpkm-queries-not-aligned/seed-1/run/model --text corpus --name 'FA + FwPKM, queries not aligned' --out results/questions/fa-fwpkm-queries-not-aligned/seed-1/needles-512.json --lengths 512
fwpkm eval needles results/questions/fa-fwpkm-queries-not-aligned/seed-1/run/model --text corpus --name 'FA + FwPKM, queries not aligned' --out results/questions/fa-fwpkm-queries-not-aligned/seed-1/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/fa-fwpkm-queries-not-aligned/seed-1/run/model --text corpus --name 'FA + FwPKM, queries not aligned' --out results/questions/fa-fwpkm-queries-not-aligned/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/fa-fwpkm-queries-not-aligned/seed-1/run/model --text corpus --name 'FA + FwPKM, queries not aligned' --out results/questions/fa-fwpkm-queries-not-aligned/seed-1/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/fa/seed-1/recipe.toml --out results/questions/fa/seed-1/run --resume
fwpkm eval needles results/questions/fa/seed-1/run/model --text corpus --name FA --out results/questions/fa/seed-1/needles-512.json --lengths 512
fwpkm eval perplexity results/questions/fa/seed-1/run/model --text corpus --name FA --out results/questions/fa/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/questions/fa-fwpkm-queries-aligned/seed-1/recipe.toml --out results/questions/fa-fwpkm-queries-aligned/seed-1/run --resume
fwpkm eval needles results/questions/fa-fwpkm-queries-aligned/seed-1/run/model --text corpus --name 'FA + FwPKM, queries aligned' --out results/questions/fa-fwpkm-queries-aligned/seed-1/needles-512.json --lengths 512
fwpkm eval needles results/questions/fa-fwpkm-queries-aligned/seed-1/run/model --text corpus --name 'FA + FwPKM, queries aligned' --out results/questions/fa-fwpkm-queries-aligned/seed-1/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/fa-fwpkm-queries-aligned/seed-1/run/model --text corpus --name 'FA + FwPKM, queries aligned' --out results/questions/fa-fwpkm-queries-aligned/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/fa-fwpkm-queries-aligned/seed-1/run/model --text corpus --name 'FA + FwPKM, queries aligned' --out results/questions/fa-fwpkm-queries-aligned/seed-1/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-1/recipe.toml --out results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-1/run --resume
fwpkm eval needles results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-1/run/model --text corpus --name 'FA + FwPKM, narrowed while training (pSWA)' --out results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-1/needles-512.json --lengths 512
fwpkm eval needles results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-1/run/model --text corpus --name 'FA + FwPKM, narrowed while training (pSWA)' --out results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-1/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-1/run/model --text corpus --name 'FA + FwPKM, narrowed while training (pSWA)' --out results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-1/run/model --text corpus --name 'FA + FwPKM, narrowed while training (pSWA)' --out results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-1/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/fa-fwpkm-narrowed-and-aligned/seed-1/recipe.toml --out results/questions/fa-fwpkm-narrowed-and-aligned/seed-1/run --resume
fwpkm eval needles results/questions/fa-fwpkm-narrowed-and-aligned/seed-1/run/model --text corpus --name 'FA + FwPKM, narrowed and aligned' --out results/questions/fa-fwpkm-narrowed-and-aligned/seed-1/needles-512.json --lengths 512
fwpkm eval needles results/questions/fa-fwpkm-narrowed-and-aligned/seed-1/run/model --text corpus --name 'FA + FwPKM, narrowed and aligned' --out results/questions/fa-fwpkm-narrowed-and-aligned/seed-1/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/fa-fwpkm-narrowed-and-aligned/seed-1/run/model --text corpus --name 'FA + FwPKM, narrowed and aligned' --out results/questions/fa-fwpkm-narrowed-and-aligned/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/fa-fwpkm-narrowed-and-aligned/seed-1/run/model --text corpus --name 'FA + FwPKM, narrowed and aligned' --out results/questions/fa-fwpkm-narrowed-and-aligned/seed-1/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/fa-fwpkm-open-gates-cost-nothing/seed-1/recipe.toml --out results/questions/fa-fwpkm-open-gates-cost-nothing/seed-1/run --resume
fwpkm eval needles results/questions/fa-fwpkm-open-gates-cost-nothing/seed-1/run/model --text corpus --name 'FA + FwPKM, open gates cost nothing' --out results/questions/fa-fwpkm-open-gates-cost-nothing/seed-1/needles-512.json --lengths 512
fwpkm eval needles results/questions/fa-fwpkm-open-gates-cost-nothing/seed-1/run/model --text corpus --name 'FA + FwPKM, open gates cost nothing' --out results/questions/fa-fwpkm-open-gates-cost-nothing/seed-1/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/fa-fwpkm-open-gates-cost-nothing/seed-1/run/model --text corpus --name 'FA + FwPKM, open gates cost nothing' --out results/questions/fa-fwpkm-open-gates-cost-nothing/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/fa-fwpkm-open-gates-cost-nothing/seed-1/run/model --text corpus --name 'FA + FwPKM, open gates cost nothing' --out results/questions/fa-fwpkm-open-gates-cost-nothing/seed-1/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-1/recipe.toml --out results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-1/run --resume
fwpkm eval needles results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-1/run/model --text corpus --name 'FA + FwPKM, the last layer alone sees everything' --out results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-1/needles-512.json --lengths 512
fwpkm eval needles results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-1/run/model --text corpus --name 'FA + FwPKM, the last layer alone sees everything' --out results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-1/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-1/run/model --text corpus --name 'FA + FwPKM, the last layer alone sees everything' --out results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-1/run/model --text corpus --name 'FA + FwPKM, the last layer alone sees everything' --out results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-1/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/swa-fwpkm-width-64/seed-1/recipe.toml --out results/questions/swa-fwpkm-width-64/seed-1/run --resume
fwpkm eval needles results/questions/swa-fwpkm-width-64/seed-1/run/model --text corpus --name 'SWA + FwPKM, width 64' --out results/questions/swa-fwpkm-width-64/seed-1/needles-512.json --lengths 512
fwpkm eval needles results/questions/swa-fwpkm-width-64/seed-1/run/model --text corpus --name 'SWA + FwPKM, width 64' --out results/questions/swa-fwpkm-width-64/seed-1/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/swa-fwpkm-width-64/seed-1/run/model --text corpus --name 'SWA + FwPKM, width 64' --out results/questions/swa-fwpkm-width-64/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/swa-fwpkm-width-64/seed-1/run/model --text corpus --name 'SWA + FwPKM, width 64' --out results/questions/swa-fwpkm-width-64/seed-1/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/swa-width-64/seed-1/recipe.toml --out results/questions/swa-width-64/seed-1/run --resume
fwpkm eval needles results/questions/swa-width-64/seed-1/run/model --text corpus --name 'SWA, width 64' --out results/questions/swa-width-64/seed-1/needles-512.json --lengths 512
fwpkm eval perplexity results/questions/swa-width-64/seed-1/run/model --text corpus --name 'SWA, width 64' --out results/questions/swa-width-64/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/questions/swa-fwpkm-width-256/seed-1/recipe.toml --out results/questions/swa-fwpkm-width-256/seed-1/run --resume
fwpkm eval needles results/questions/swa-fwpkm-width-256/seed-1/run/model --text corpus --name 'SWA + FwPKM, width 256' --out results/questions/swa-fwpkm-width-256/seed-1/needles-512.json --lengths 512
fwpkm eval needles results/questions/swa-fwpkm-width-256/seed-1/run/model --text corpus --name 'SWA + FwPKM, width 256' --out results/questions/swa-fwpkm-width-256/seed-1/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/swa-fwpkm-width-256/seed-1/run/model --text corpus --name 'SWA + FwPKM, width 256' --out results/questions/swa-fwpkm-width-256/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/swa-fwpkm-width-256/seed-1/run/model --text corpus --name 'SWA + FwPKM, width 256' --out results/questions/swa-fwpkm-width-256/seed-1/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/swa-width-256/seed-1/recipe.toml --out results/questions/swa-width-256/seed-1/run --resume
fwpkm eval needles results/questions/swa-width-256/seed-1/run/model --text corpus --name 'SWA, width 256' --out results/questions/swa-width-256/seed-1/needles-512.json --lengths 512
fwpkm eval perplexity results/questions/swa-width-256/seed-1/run/model --text corpus --name 'SWA, width 256' --out results/questions/swa-width-256/seed-1/perplexity.json --length 8192 --max-runs 8
fwpkm train results/questions/swa-fwpkm/seed-2/recipe.toml --out results/questions/swa-fwpkm/seed-2/run --resume
fwpkm eval needles results/questions/swa-fwpkm/seed-2/run/model --text corpus --name 'SWA + FwPKM' --out results/questions/swa-fwpkm/seed-2/needles-512.json --lengths 512
fwpkm eval needles results/questions/swa-fwpkm/seed-2/run/model --text corpus --name 'SWA + FwPKM' --out results/questions/swa-fwpkm/seed-2/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/swa-fwpkm/seed-2/run/model --text corpus --name 'SWA + FwPKM' --out results/questions/swa-fwpkm/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/swa-fwpkm/seed-2/run/model --text corpus --name 'SWA + FwPKM' --out results/questions/swa-fwpkm/seed-2/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/swa/seed-2/recipe.toml --out results/questions/swa/seed-2/run --resume
fwpkm eval needles results/questions/swa/seed-2/run/model --text corpus --name SWA --out results/questions/swa/seed-2/needles-512.json --lengths 512
fwpkm eval perplexity results/questions/swa/seed-2/run/model --text corpus --name SWA --out results/questions/swa/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/questions/gdn-fwpkm/seed-2/recipe.toml --out results/questions/gdn-fwpkm/seed-2/run --resume
fwpkm eval needles results/questions/gdn-fwpkm/seed-2/run/model --text corpus --name 'GDN + FwPKM' --out results/questions/gdn-fwpkm/seed-2/needles-512.json --lengths 512
fwpkm eval needles results/questions/gdn-fwpkm/seed-2/run/model --text corpus --name 'GDN + FwPKM' --out results/questions/gdn-fwpkm/seed-2/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/gdn-fwpkm/seed-2/run/model --text corpus --name 'GDN + FwPKM' --out results/questions/gdn-fwpkm/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/gdn-fwpkm/seed-2/run/model --text corpus --name 'GDN + FwPKM' --out results/questions/gdn-fwpkm/seed-2/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/gdn/seed-2/recipe.toml --out results/questions/gdn/seed-2/run --resume
fwpkm eval needles results/questions/gdn/seed-2/run/model --text corpus --name GDN --out results/questions/gdn/seed-2/needles-512.json --lengths 512
fwpkm eval perplexity results/questions/gdn/seed-2/run/model --text corpus --name GDN --out results/questions/gdn/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/questions/swa-gdn-fwpkm/seed-2/recipe.toml --out results/questions/swa-gdn-fwpkm/seed-2/run --resume
fwpkm eval needles results/questions/swa-gdn-fwpkm/seed-2/run/model --text corpus --name 'SWA+GDN + FwPKM' --out results/questions/swa-gdn-fwpkm/seed-2/needles-512.json --lengths 512
fwpkm eval needles results/questions/swa-gdn-fwpkm/seed-2/run/model --text corpus --name 'SWA+GDN + FwPKM' --out results/questions/swa-gdn-fwpkm/seed-2/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/swa-gdn-fwpkm/seed-2/run/model --text corpus --name 'SWA+GDN + FwPKM' --out results/questions/swa-gdn-fwpkm/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/swa-gdn-fwpkm/seed-2/run/model --text corpus --name 'SWA+GDN + FwPKM' --out results/questions/swa-gdn-fwpkm/seed-2/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/swa-gdn/seed-2/recipe.toml --out results/questions/swa-gdn/seed-2/run --resume
fwpkm eval needles results/questions/swa-gdn/seed-2/run/model --text corpus --name SWA+GDN --out results/questions/swa-gdn/seed-2/needles-512.json --lengths 512
fwpkm eval perplexity results/questions/swa-gdn/seed-2/run/model --text corpus --name SWA+GDN --out results/questions/swa-gdn/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/questions/fa-fwpkm-queries-not-aligned/seed-2/recipe.toml --out results/questions/fa-fwpkm-queries-not-aligned/seed-2/run --resume
fwpkm eval needles results/questions/fa-fwpkm-queries-not-aligned/seed-2/run/model --text corpus --name 'FA + FwPKM, queries not aligned' --out results/questions/fa-fwpkm-queries-not-aligned/seed-2/needles-512.json --lengths 512
fwpkm eval needles results/questions/fa-fwpkm-queries-not-aligned/seed-2/run/model --text corpus --name 'FA + FwPKM, queries not aligned' --out results/questions/fa-fwpkm-queries-not-aligned/seed-2/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/fa-fwpkm-queries-not-aligned/seed-2/run/model --text corpus --name 'FA + FwPKM, queries not aligned' --out results/questions/fa-fwpkm-queries-not-aligned/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/fa-fwpkm-queries-not-aligned/seed-2/run/model --text corpus --name 'FA + FwPKM, queries not aligned' --out results/questions/fa-fwpkm-queries-not-aligned/seed-2/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/fa/seed-2/recipe.toml --out results/questions/fa/seed-2/run --resume
fwpkm eval needles results/questions/fa/seed-2/run/model --text corpus --name FA --out results/questions/fa/seed-2/needles-512.json --lengths 512
fwpkm eval perplexity results/questions/fa/seed-2/run/model --text corpus --name FA --out results/questions/fa/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/questions/fa-fwpkm-queries-aligned/seed-2/recipe.toml --out results/questions/fa-fwpkm-queries-aligned/seed-2/run --resume
fwpkm eval needles results/questions/fa-fwpkm-queries-aligned/seed-2/run/model --text corpus --name 'FA + FwPKM, queries aligned' --out results/questions/fa-fwpkm-queries-aligned/seed-2/needles-512.json --lengths 512
fwpkm eval needles results/questions/fa-fwpkm-queries-aligned/seed-2/run/model --text corpus --name 'FA + FwPKM, queries aligned' --out results/questions/fa-fwpkm-queries-aligned/seed-2/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/fa-fwpkm-queries-aligned/seed-2/run/model --text corpus --name 'FA + FwPKM, queries aligned' --out results/questions/fa-fwpkm-queries-aligned/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/fa-fwpkm-queries-aligned/seed-2/run/model --text corpus --name 'FA + FwPKM, queries aligned' --out results/questions/fa-fwpkm-queries-aligned/seed-2/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-2/recipe.toml --out results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-2/run --resume
fwpkm eval needles results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-2/run/model --text corpus --name 'FA + FwPKM, narrowed while training (pSWA)' --out results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-2/needles-512.json --lengths 512
fwpkm eval needles results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-2/run/model --text corpus --name 'FA + FwPKM, narrowed while training (pSWA)' --out results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-2/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-2/run/model --text corpus --name 'FA + FwPKM, narrowed while training (pSWA)' --out results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-2/run/model --text corpus --name 'FA + FwPKM, narrowed while training (pSWA)' --out results/questions/fa-fwpkm-narrowed-while-training-pswa/seed-2/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/fa-fwpkm-narrowed-and-aligned/seed-2/recipe.toml --out results/questions/fa-fwpkm-narrowed-and-aligned/seed-2/run --resume
fwpkm eval needles results/questions/fa-fwpkm-narrowed-and-aligned/seed-2/run/model --text corpus --name 'FA + FwPKM, narrowed and aligned' --out results/questions/fa-fwpkm-narrowed-and-aligned/seed-2/needles-512.json --lengths 512
fwpkm eval needles results/questions/fa-fwpkm-narrowed-and-aligned/seed-2/run/model --text corpus --name 'FA + FwPKM, narrowed and aligned' --out results/questions/fa-fwpkm-narrowed-and-aligned/seed-2/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/fa-fwpkm-narrowed-and-aligned/seed-2/run/model --text corpus --name 'FA + FwPKM, narrowed and aligned' --out results/questions/fa-fwpkm-narrowed-and-aligned/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/fa-fwpkm-narrowed-and-aligned/seed-2/run/model --text corpus --name 'FA + FwPKM, narrowed and aligned' --out results/questions/fa-fwpkm-narrowed-and-aligned/seed-2/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/fa-fwpkm-open-gates-cost-nothing/seed-2/recipe.toml --out results/questions/fa-fwpkm-open-gates-cost-nothing/seed-2/run --resume
fwpkm eval needles results/questions/fa-fwpkm-open-gates-cost-nothing/seed-2/run/model --text corpus --name 'FA + FwPKM, open gates cost nothing' --out results/questions/fa-fwpkm-open-gates-cost-nothing/seed-2/needles-512.json --lengths 512
fwpkm eval needles results/questions/fa-fwpkm-open-gates-cost-nothing/seed-2/run/model --text corpus --name 'FA + FwPKM, open gates cost nothing' --out results/questions/fa-fwpkm-open-gates-cost-nothing/seed-2/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/fa-fwpkm-open-gates-cost-nothing/seed-2/run/model --text corpus --name 'FA + FwPKM, open gates cost nothing' --out results/questions/fa-fwpkm-open-gates-cost-nothing/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/fa-fwpkm-open-gates-cost-nothing/seed-2/run/model --text corpus --name 'FA + FwPKM, open gates cost nothing' --out results/questions/fa-fwpkm-open-gates-cost-nothing/seed-2/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-2/recipe.toml --out results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-2/run --resume
fwpkm eval needles results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-2/run/model --text corpus --name 'FA + FwPKM, the last layer alone sees everything' --out results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-2/needles-512.json --lengths 512
fwpkm eval needles results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-2/run/model --text corpus --name 'FA + FwPKM, the last layer alone sees everything' --out results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-2/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-2/run/model --text corpus --name 'FA + FwPKM, the last layer alone sees everything' --out results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-2/run/model --text corpus --name 'FA + FwPKM, the last layer alone sees everything' --out results/questions/fa-fwpkm-the-last-layer-alone-sees-everything/seed-2/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/swa-fwpkm-width-64/seed-2/recipe.toml --out results/questions/swa-fwpkm-width-64/seed-2/run --resume
fwpkm eval needles results/questions/swa-fwpkm-width-64/seed-2/run/model --text corpus --name 'SWA + FwPKM, width 64' --out results/questions/swa-fwpkm-width-64/seed-2/needles-512.json --lengths 512
fwpkm eval needles results/questions/swa-fwpkm-width-64/seed-2/run/model --text corpus --name 'SWA + FwPKM, width 64' --out results/questions/swa-fwpkm-width-64/seed-2/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/swa-fwpkm-width-64/seed-2/run/model --text corpus --name 'SWA + FwPKM, width 64' --out results/questions/swa-fwpkm-width-64/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/swa-fwpkm-width-64/seed-2/run/model --text corpus --name 'SWA + FwPKM, width 64' --out results/questions/swa-fwpkm-width-64/seed-2/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/swa-width-64/seed-2/recipe.toml --out results/questions/swa-width-64/seed-2/run --resume
fwpkm eval needles results/questions/swa-width-64/seed-2/run/model --text corpus --name 'SWA, width 64' --out results/questions/swa-width-64/seed-2/needles-512.json --lengths 512
fwpkm eval perplexity results/questions/swa-width-64/seed-2/run/model --text corpus --name 'SWA, width 64' --out results/questions/swa-width-64/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm train results/questions/swa-fwpkm-width-256/seed-2/recipe.toml --out results/questions/swa-fwpkm-width-256/seed-2/run --resume
fwpkm eval needles results/questions/swa-fwpkm-width-256/seed-2/run/model --text corpus --name 'SWA + FwPKM, width 256' --out results/questions/swa-fwpkm-width-256/seed-2/needles-512.json --lengths 512
fwpkm eval needles results/questions/swa-fwpkm-width-256/seed-2/run/model --text corpus --name 'SWA + FwPKM, width 256' --out results/questions/swa-fwpkm-width-256/seed-2/needles-4096.json --lengths 4096
fwpkm eval perplexity results/questions/swa-fwpkm-width-256/seed-2/run/model --text corpus --name 'SWA + FwPKM, width 256' --out results/questions/swa-fwpkm-width-256/seed-2/perplexity.json --length 8192 --max-runs 8
fwpkm eval perplexity results/questions/swa-fwpkm-width-256/seed-2/run/model --text corpus --name 'SWA + FwPKM, width 256' --out results/questions/swa-fwpkm-width-256/seed-2/perplexity-memory-off.json --length 8192 --max-runs 8 --memory memory_off
fwpkm train results/questions/swa-width-256/seed-2/recipe.toml --out results/questions/swa-width-256/seed-2/run --resume
fwpkm eval needles results/questions/swa-width-256/seed-2/run/model --text corpus --name 'SWA, width 256' --out results/questions/swa-width-256/seed-2/needles-512.json --lengths 512
fwpkm eval perplexity results/questions/swa-width-256/seed-2/run/model --text corpus --name 'SWA, width 256' --out results/questions/swa-width-256/seed-2/perplexity.json --length 8192 --max-runs 8
