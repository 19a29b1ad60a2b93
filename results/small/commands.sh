#!/bin/sh -e
fwpkm train results/small/fwpkm-on-swa-gdn/seed-0/recipe.toml --out results/small/fwpkm-on-swa-gdn/seed-0/run --resume
fwpkm eval needles results/small/fwpkm-on-swa-gdn/seed-0/run/model --text corpus --name 'FwPKM on SWA+GDN' --out results/small/fwpkm-on-swa-gdn/seed-0/needles-512.json --lengths 512
fwpkm eval needles results/small/fwpkm-on-swa-gdn/seed-0/run/model --text corpus --name 'FwPKM on SWA+GDN' --out results/small/fwpkm-on-swa-gdn/seed-0/needles-16384.json --lengths 16384
fwpkm eval needles results/small/fwpkm-on-swa-gdn/seed-0/run/model --text corpus --name 'FwPKM on SWA+GDN' --out results/small/fwpkm-on-swa-gdn/seed-0/needles-131072.json --lengths 131072 --reads 1
fwpkm eval perplexity results/small/fwpkm-on-swa-gdn/seed-0/run/model --text corpus --name 'FwPKM on SWA+GDN' --out results/small/fwpkm-on-swa-gdn/seed-0/perplexity.json
fwpkm eval perplexity results/small/fwpkm-on-swa-gdn/seed-0/run/model --text corpus --name 'FwPKM on SWA+GDN' --out results/small/fwpkm-on-swa-gdn/seed-0/perplexity-memory-off.json --memory memory_off
fwpkm train results/small/swa-gdn/seed-0/recipe.toml --out results/small/swa-gdn/seed-0/run --resume
fwpkm eval needles results/small/swa-gdn/seed-0/run/model --text corpus --name SWA+GDN --out results/small/swa-gdn/seed-0/needles-512.json --lengths 512
fwpkm eval needles results/small/swa-gdn/seed-0/run/model --text corpus --name SWA+GDN --out results/small/swa-gdn/seed-0/needles-16384.json --lengths 16384
fwpkm eval perplexity results/small/swa-gdn/seed-0/run/model --text corpus --name SWA+GDN --out results/small/swa-gdn/seed-0/perplexity.json
fwpkm train results/small/gdn/seed-0/recipe.toml --out results/small/gdn/seed-0/run --resume
fwpkm eval needles results/small/gdn/seed-0/run/model --text corpus --name GDN --out results/small/gdn/seed-0/needles-512.json --lengths 512
fwpkm eval needles results/small/gdn/seed-0/run/model --text corpus --name GDN --out results/small/gdn/seed-0/needles-16384.json --lengths 16384
fwpkm eval perplexity results/small/gdn/seed-0/run/model --text corpus --name GDN --out results/small/gdn/seed-0/perplexity.json
fwpkm train results/small/swa/seed-0/recipe.toml --out results/small/swa/seed-0/run --resume
fwpkm eval needles results/small/swa/seed-0/run/model --text corpus --name SWA --out results/small/swa/seed-0/needles-512.json --lengths 512
fwpkm eval needles results/small/swa/seed-0/run/model --text corpus --name SWA --out results/small/swa/seed-0/needles-16384.json --lengths 16384
fwpkm eval perplexity results/small/swa/seed-0/run/model --text corpus --name SWA --out results/small/swa/seed-0/perplexity.json
fwpkm train results/small/fa/seed-0/recipe.toml --out results/small/fa/seed-0/run --resume
fwpkm eval needles results/small/fa/seed-0/run/model --text corpus --name FA --out results/small/fa/seed-0/needles-512.json --lengths 512
fwpkm eval needles results/small/fa/seed-0/run/model --text corpus --name FA --out results/small/fa/seed-0/needles-16384.json --lengths 16384 --reads 1
fwpkm eval perplexity results/small/fa/seed-0/run/model --text corpus --name FA --out results/small/fa/seed-0/perplexity.json
fwpkm eval needles results/small/fa/seed-0/run/model --text corpus --name 'FA, YaRN' --out results/small/fa/seed-0/needles-512-yarn.json --yarn-from 512 --lengths 512
fwpkm eval needles results/small/fa/seed-0/run/model --text corpus --name 'FA, YaRN' --out results/small/fa/seed-0/needles-16384-yarn.json --yarn-from 512 --lengths 16384 --reads 1
fwpkm eval perplexity results/small/fa/seed-0/run/model --text corpus --name 'FA, YaRN' --out results/small/fa/seed-0/perplexity-yarn.json --yarn-from 512
fwpkm train results/small/fwpkm-on-swa-gdn/seed-1/recipe.toml --out results/small/fwpkm-on-swa-gdn/seed-1/run --resume
fwpkm eval needles results/small/fwpkm-on-swa-gdn/seed-1/run/model --text corpus --name 'FwPKM on SWA+GDN' --out results/small/fwpkm-on-swa-gdn/seed-1/needles-512.json --lengths 512
fwpkm eval needles results/small/fwpkm-on-swa-gdn/seed-1/run/model --text corpus --name 'FwPKM on SWA+GDN' --out results/small/fwpkm-on-swa-gdn/seed-1/needles-16384.json --lengths 16384
fwpkm eval needles results/small/fwpkm-on-swa-gdn/seed-1/run/model --text corpus --name 'FwPKM on SWA+GDN' --out results/small/fwpkm-on-swa-gdn/seed-1/needles-131072.json --lengths 131072 --reads 1
fwpkm eval perplexity results/small/fwpkm-on-swa-gdn/seed-1/run/model --text corpus --name 'FwPKM on SWA+GDN' --out results/small/fwpkm-on-swa-gdn/seed-1/perplexity.json
fwpkm eval perplexity results/small/fwpkm-on-swa-gdn/seed-1/run/model --text corpus --name 'FwPKM on SWA+GDN' --out results/small/fwpkm-on-swa-gdn/seed-1/perplexity-memory-off.json --memory memory_off
fwpkm train results/small/swa-gdn/seed-1/recipe.toml --out results/small/swa-gdn/seed-1/run --resume
fwpkm eval needles results/small/swa-gdn/seed-1/run/model --text corpus --name SWA+GDN --out results/small/swa-gdn/seed-1/needles-512.json --lengths 512
fwpkm eval needles results/small/swa-gdn/seed-1/run/model --text corpus --name SWA+GDN --out results/small/swa-gdn/seed-1/needles-16384.json --lengths 16384
fwpkm eval perplexity results/small/swa-gdn/seed-1/run/model --text corpus --name SWA+GDN --out results/small/swa-gdn/seed-1/perplexity.json
fwpkm train results/small/gdn/seed-1/recipe.toml --out results/small/gdn/seed-1/run --resume
fwpkm eval needles results/small/gdn/seed-1/run/model --text corpus --name GDN --out results/small/gdn/seed-1/needles-512.json --lengths 512
fwpkm eval needles results/small/gdn/seed-1/run/model --text corpus --name GDN --out results/small/gdn/seed-1/needles-16384.json --lengths 16384
fwpkm eval perplexity results/small/gdn/seed-1/run/model --text corpus --name GDN --out results/small/gdn/seed-1/perplexity.json
fwpkm train results/small/swa/seed-1/recipe.toml --out results/small/swa/seed-1/run --resume
fwpkm eval needles results/small/swa/seed-1/run/model --text corpus --name SWA --out results/small/swa/seed-1/needles-512.json --lengths 512
fwpkm eval needles results/small/swa/seed-1/run/model --text corpus --name SWA --out results/small/swa/seed-1/needles-16384.json --lengths 16384
fwpkm eval perplexity results/small/swa/seed-1/run/model --text corpus --name SWA --out results/small/swa/seed-1/perplexity.json
fwpkm train results/small/fa/seed-1/recipe.toml --out results/small/fa/seed-1/run --resume
fwpkm eval needles results/small/fa/seed-1/run/model --text corpus --name FA --out results/small/fa/seed-1/needles-512.json --lengths 512
fwpkm eval needles results/small/fa/seed-1/run/model --text corpus --name FA --out results/small/fa/seed-1/needles-16384.json --lengths 16384 --reads 1
fwpkm eval perplexity results/small/fa/seed-1/run/model --text corpus --name FA --out results/small/fa/seed-1/perplexity.json
fwpkm eval needles results/small/fa/seed-1/run/model --text corpus --name 'FA, YaRN' --out results/small/fa/seed-1/needles-512-yarn.json --yarn-from 512 --lengths 512
fwpkm eval needles results/small/fa/seed-1/run/model --text corpus --name 'FA, YaRN' --out results/small/fa/seed-1/needles-16384-yarn.json --yarn-from 512 --lengths 16384 --reads 1
fwpkm eval perplexity results/small/fa/seed-1/run/model --text corpus --name 'FA, YaRN' --out results/small/fa/seed-1/perplexity-yarn.json --yarn-from 512
fwpkm train results/small/fwpkm-on-swa-gdn/seed-2/recipe.toml --out results/small/fwpkm-on-swa-gdn/seed-2/run --resume
fwpkm eval needles results/small/fwpkm-on-swa-gdn/seed-2/run/model --text corpus --name 'FwPKM on SWA+GDN' --out results/small/fwpkm-on-swa-gdn/seed-2/needles-512.json --lengths 512
fwpkm eval needles results/small/fwpkm-on-swa-gdn/seed-2/run/model --text corpus --name 'FwPKM on SWA+GDN' --out results/small/fwpkm-on-swa-gdn/seed-2/needles-16384.json --lengths 16384
fwpkm eval needles results/small/fwpkm-on-swa-gdn/seed-2/run/model --text corpus --name 'FwPKM on SWA+GDN' --out results/small/fwpkm-on-swa-gdn/seed-2/needles-131072.json --lengths 131072 --reads 1
fwpkm eval perplexity results/small/fwpkm-on-swa-gdn/seed-2/run/model --text corpus --name 'FwPKM on SWA+GDN' --out results/small/fwpkm-on-swa-gdn/seed-2/perplexity.json
fwpkm eval perplexity results/small/fwpkm-on-swa-gdn/seed-2/run/model --text corpus --name 'FwPKM on SWA+GDN' --out results/small/fwpkm-on-swa-gdn/seed-2/perplexity-memory-off.json --memory memory_off
fwpkm train results/small/swa-gdn/seed-2/recipe.toml --out results/small/swa-gdn/seed-2/run --resume
fwpkm eval needles results/small/swa-gdn/seed-2/run/model --text corpus --name SWA+GDN --out results/small/swa-gdn/seed-2/needles-512.json --lengths 512
fwpkm eval needles results/small/swa-gdn/seed-2/run/model --text corpus --name SWA+GDN --out results/small/swa-gdn/seed-2/needles-16384.json --lengths 16384
fwpkm eval perplexity results/small/swa-gdn/seed-2/run/model --text corpus --name SWA+GDN --out results/small/swa-gdn/seed-2/perplexity.json
fwpkm train results/small/gdn/seed-2/recipe.toml --out results/small/gdn/seed-2/run --resume
fwpkm eval needles results/small/gdn/seed-2/run/model --text corpus --name GDN --out results/small/gdn/seed-2/needles-512.json --lengths 512
fwpkm eval needles results/small/gdn/seed-2/run/model --text corpus --name GDN --out results/small/gdn/seed-2/needles-16384.json --lengths 16384
fwpkm eval perplexity results/small/gdn/seed-2/run/model --text corpus --name GDN --out results/small/gdn/seed-2/perplexity.json
fwpkm train results/small/swa/seed-2/recipe.toml --out results/small/swa/seed-2/run --resume
fwpkm eval needles results/small/swa/seed-2/run/model --text corpus --name SWA --out results/small/swa/seed-2/needles-512.json --lengths 512
fwpkm eval needles results/small/swa/seed-2/run/model --text corpus --name SWA --out results/small/swa/seed-2/needles-16384.json --lengths 16384
fwpkm eval perplexity results/small/swa/seed-2/run/model --text corpus --name SWA --out results/small/swa/seed-2/perplexity.json
fwpkm train results/small/fa/seed-2/recipe.toml --out results/small/fa/seed-2/run --resume
fwpkm eval needles results/small/fa/seed-2/run/model --text corpus --name FA --out results/small/fa/seed-2/needles-512.json --lengths 512
fwpkm eval needles results/small/fa/seed-2/run/model --text corpus --name FA --out results/small/fa/seed-2/needles-16384.json --lengths 16384 --reads 1
fwpkm eval perplexity results/small/fa/seed-2/run/model --text corpus --name FA --out results/small/fa/seed-2/perplexity.json
fwpkm eval needles results/small/fa/seed-2/run/model --text corpus --name 'FA, YaRN' --out results/small/fa/seed-2/needles-512-yarn.json --yarn-from 512 --lengths 512
fwpkm eval needles results/small/fa/seed-2/run/model --text corpus --name 'FA, YaRN' --out results/small/fa/seed-2/needles-16384-yarn.json --yarn-from 512 --lengths 16384 --reads 1
fwpkm eval perplexity results/small/fa/seed-2/run/model --text corpus --name 'FA, YaRN' --out results/small/fa/seed-2/perplexity-yarn.json --yarn-from 512
