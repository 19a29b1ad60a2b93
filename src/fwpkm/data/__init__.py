"""Text in, training batches and needle tasks out.

tokenizer = load_tokenizer("bytes")                                 fwpkm.data.tokenizer
train, held_out = novel_documents(tokenizer)                        fwpkm.data.books
train = open_corpus(path).documents("train")                        fwpkm.data.shards
source = RecallSequences(PackedSequences(train, seq_len=512),       fwpkm.data.recall, fwpkm.data.sequences
                         ProseHaystack(train), tokenizer, RecallConfig())
batches = SequenceBatches(source, batch_size=8)                     fwpkm.data.batches
batch = next(batches)                                               Batch: input_ids, targets, weights, ...
sample = NeedleMaker("paper", tokenizer, ProseHaystack(held_out)).sample(length=4096, depth=0.5, seed=0)
"""
