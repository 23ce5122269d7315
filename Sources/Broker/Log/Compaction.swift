internal import System
import Wire

/// Compaction: of each key in a compacted topic only the newest record is kept.
///
/// A pass reads the *dirty* part of the closed segments (what came since the last pass) into a map from key to newest
/// offset, then writes all closed segments again without the records that the map outdates, merging what has become
/// small. Offsets never change; gaps appear. The active segment is left alone.
///
/// A tombstone (a record without a value) outlives the values that it deletes by `delete.retention.ms`: a reader that saw
/// such a value before a pass removed it has that long to reach the tombstone. So a pass may drop tombstones below the
/// offset up to which an *earlier* pass had cleaned, if that was long enough ago.
///
/// The work is done on the maintenance thread, from files that do not change; the loop's thread puts the result in place.
struct Compaction: Sendable {
    /// A closed segment as the pass finds it.
    struct Source: Sendable, Equatable {
        var path: String
        var baseOffset: Int64
        var nextOffset: Int64
        var size: Int
    }

    /// A segment that replaces a run of sources, finished and synchronized under a temporary name.
    struct Product: Sendable {
        var sources: [Source]
        var path: String
        var size: Int
        var maxTimestamp: Int64
        var index: [UInt8]

        var baseOffset: Int64 { sources.first?.baseOffset ?? 0 }
        var nextOffset: Int64 { sources.last?.nextOffset ?? 0 }
    }

    struct Outcome: Sendable {
        var products: [Product] = []
        /// Below this every key has one record.
        var cleanedOffset: Int64
        var recordsRead = 0
        var recordsKept = 0
    }

    var sources: [Source]
    var cleanedOffset: Int64
    /// Tombstones below this may go.
    var tombstoneLimit: Int64
    var segmentBytes: Int

    /// Keys in the map of one pass, 48 bytes each. A topic with more is cleaned in several passes.
    static let keysMax = 1_000_000
    static let temporarySuffix = ".cleaned"

    /// 128 bits of a key, by two keyed hashes: enough that no two keys of a topic ever share them.
    private struct Digest: Hashable {
        let first: Int
        let second: Int

        init(_ key: Span<UInt8>) {
            var hasher = Hasher()
            for index in key.indices { hasher.combine(key[index]) }
            var other = hasher
            other.combine(0x5bd1_e995)
            first = hasher.finalize()
            second = other.finalize()
        }
    }

    func run() throws(BrokerError) -> Outcome {
        var outcome = Outcome(cleanedOffset: cleanedOffset)
        var newest: [Digest: Int64] = [:]
        let end = try readKeys(into: &newest)
        guard end > cleanedOffset || tombstoneLimit > 0 else { return outcome }
        outcome.cleanedOffset = max(end, cleanedOffset)
        var run: [Source] = []
        var runBytes = 0
        for source in sources where source.baseOffset < outcome.cleanedOffset {
            let spansTooMuch = run.first.map { source.nextOffset - $0.baseOffset > 0x7fff_ffff } ?? false
            if !run.isEmpty, runBytes + source.size > segmentBytes || spansTooMuch {
                outcome.products.append(try write(run, newest, &outcome))
                run = []
                runBytes = 0
            }
            run.append(source)
            runBytes += source.size
        }
        if !run.isEmpty { outcome.products.append(try write(run, newest, &outcome)) }
        return outcome
    }

    /// Maps the keys of the dirty part; the offset up to which it got.
    private func readKeys(into newest: inout [Digest: Int64]) throws(BrokerError) -> Int64 {
        for source in sources where source.nextOffset > cleanedOffset {
            var scanner = try scanner(source)
            while let batch = try scanner.next() {
                guard batch.lastOffset >= cleanedOffset else { continue }
                if newest.count + Int(batch.recordCount) > Self.keysMax, !newest.isEmpty { return batch.baseOffset }
                let records = try batch.records(of: try scanner.bytes(of: batch))
                var position = 0
                while let record = Record(records.span, at: position) {
                    position = record.range.upperBound
                    guard let key = record.key else { continue }
                    newest[Digest(records.span.extracting(key))] = batch.baseOffset + Int64(record.offsetDelta)
                }
            }
            if let damage = scanner.damage { throw BrokerError(.corrupt, "\(source.path): \(damage)") }
        }
        return sources.last?.nextOffset ?? cleanedOffset
    }

    private func scanner(_ source: Source) throws(BrokerError) -> BatchScanner {
        let file = try storing(source.path) { () throws(SystemError) in SharedFile(try File(source.path)) }
        return BatchScanner(file, path: source.path, from: 0, limit: source.size, chunkBytes: 1 << 20)
    }

    private func write(
        _ run: [Source], _ newest: [Digest: Int64], _ outcome: inout Outcome
    ) throws(BrokerError) -> Product {
        let base = run.first?.baseOffset ?? 0
        let path = (run.first?.path ?? "") + Self.temporarySuffix
        let file = try storing(path) { () throws(SystemError) in try File(path, .write, create: .truncate) }
        var index = SparseIndex(baseOffset: base)
        var size = 0
        var maxTimestamp: Int64 = -1
        var buffer: [UInt8] = []
        for source in run {
            var scanner = try scanner(source)
            while let batch = try scanner.next() {
                let bytes = try scanner.bytes(of: batch)
                guard let kept = try keep(batch, bytes, newest, &outcome) else { continue }
                index.note(
                    offset: batch.baseOffset, position: size + buffer.count, maxTimestampBefore: maxTimestamp)
                maxTimestamp = max(maxTimestamp, batch.maxTimestamp)
                buffer += kept
                if buffer.count >= 1 << 20 { try flush(&buffer, to: file, path, at: &size) }
            }
            if let damage = scanner.damage { throw BrokerError(.corrupt, "\(source.path): \(damage)") }
        }
        try flush(&buffer, to: file, path, at: &size)
        try storing(path) { () throws(SystemError) in try file.synchronize() }
        let end = run.last?.nextOffset ?? base
        var entries: [UInt8] = []
        for entry in index.entries + [.init(offset: end, position: size, maxTimestampBefore: maxTimestamp)] {
            SparseIndex.encode(entry, base: base, into: &entries)
        }
        return Product(sources: run, path: path, size: size, maxTimestamp: maxTimestamp, index: entries)
    }

    private func flush(
        _ buffer: inout [UInt8], to file: borrowing File, _ path: String, at size: inout Int
    ) throws(BrokerError) {
        do throws(SystemError) {
            try file.write(buffer, at: Int64(size))
        } catch {
            throw BrokerError(.storage, "cannot write \(path)", cause: error)
        }
        size += buffer.count
        buffer.removeAll(keepingCapacity: true)
    }

    /// The batch with what is kept of it; `nil` when nothing is.
    private func keep(
        _ batch: RecordBatch, _ bytes: [UInt8], _ newest: [Digest: Int64], _ outcome: inout Outcome
    ) throws(BrokerError) -> [UInt8]? {
        let records = try batch.records(of: bytes)
        var kept: [UInt8] = []
        kept.reserveCapacity(records.count)
        var count: Int32 = 0
        var newestDelta = Int64.min
        var position = 0
        while let record = Record(records.span, at: position) {
            position = record.range.upperBound
            let offset = batch.baseOffset + Int64(record.offsetDelta)
            if let key = record.key {
                if let latest = newest[Digest(records.span.extracting(key))], latest > offset { continue }
                if record.value == nil, offset < tombstoneLimit { continue }
            }
            kept.append(records.span.extracting(record.range))
            count += 1
            newestDelta = max(newestDelta, record.timestampDelta)
        }
        outcome.recordsRead += Int(batch.recordCount)
        outcome.recordsKept += Int(count)
        if count == batch.recordCount { return bytes }
        guard count > 0 else { return nil }
        let maxTimestamp = batch.usesLogAppendTime ? batch.maxTimestamp : batch.baseTimestamp &+ newestDelta
        return try batch.rebuilt(from: bytes, records: kept, count: count, maxTimestamp: maxTimestamp)
    }
}

extension RecordBatch {
    /// The batch with fewer records in it, compressed as before; their offsets and times stay.
    fileprivate func rebuilt(
        from bytes: [UInt8], records: [UInt8], count: Int32, maxTimestamp: Int64
    ) throws(BrokerError) -> [UInt8] {
        var batch = Array(bytes[..<Self.headerSize])
        do throws(SystemError) {
            batch += try codec?.compress(records) ?? records
        } catch {
            throw BrokerError(.storage, "cannot compress a batch", cause: error)
        }
        batch.setBigEndian(Int32(batch.count - Self.lengthOverhead), at: 8)
        batch.setBigEndian(maxTimestamp, at: 35)
        batch.setBigEndian(count, at: 57)
        batch.setBigEndian(CRC32C.checksum(batch.span.extracting(21..<batch.count)), at: 17)
        return batch
    }
}

extension PartitionLog {
    /// What a pass over this log would do now; `nil` when it is not worth one yet.
    func compaction(nowMs: Int64) -> Compaction? {
        guard config.isCompacted, segments.count > 1, !isCompacting else { return nil }
        // Committed, closed, and old enough.
        let closed = segments.dropLast().prefix { segment in
            segment.nextOffset <= committed.offset
                && (config.minCompactionLagMs == 0 || age(of: segment, nowMs) >= config.minCompactionLagMs)
        }
        guard !closed.isEmpty else { return nil }
        let total = closed.reduce(0) { $0 + $1.size }
        let dirty = closed.reduce(0) { $0 + ($1.nextOffset > cleanedOffset ? $1.size : 0) }
        let tombstonesAreDue = tombstones.map { nowMs - $0.sinceMs >= config.deleteRetentionMs } ?? false
        let isOverdue = closed.contains { segment in
            segment.nextOffset > cleanedOffset && config.maxCompactionLagMs != .max
                && age(of: segment, nowMs) >= config.maxCompactionLagMs
        }
        let isWorthIt = dirty > 0 && Double(dirty) >= Double(total) * config.minCleanableDirtyRatio
        guard isWorthIt || isOverdue || tombstonesAreDue else { return nil }
        return Compaction(
            sources: closed.map {
                .init(path: $0.logPath, baseOffset: $0.baseOffset, nextOffset: $0.nextOffset, size: $0.size)
            }, cleanedOffset: cleanedOffset, tombstoneLimit: tombstonesAreDue ? tombstones?.below ?? 0 : 0,
            segmentBytes: config.segmentBytes)
    }

    /// A segment that cannot be read is left for its reader to report.
    private func age(of segment: Segment, _ nowMs: Int64) -> Int64 {
        (try? maxTimestamp(of: segment)).map { nowMs - $0 } ?? 0
    }

    /// Puts the result of a pass in place. What has changed meanwhile (retention, deleted records) is left as it is.
    func adopt(_ outcome: Compaction.Outcome, of pass: Compaction, nowMs: Int64) throws(BrokerError) {
        var isComplete = true
        for product in outcome.products {
            let first = segments.firstIndex { $0.baseOffset == product.baseOffset }
            let isCurrent = first.map { first in
                first + product.sources.count < segments.count
                    && zip(segments[first...], product.sources).allSatisfy {
                        $0.baseOffset == $1.baseOffset && $0.size == $1.size
                    }
            }
            guard let first, isCurrent == true else {
                try? File.remove(product.path)
                isComplete = false
                continue
            }
            try replace(first..<first + product.sources.count, with: product)
        }
        // A record that should have gone and has not must be found dirty again.
        guard isComplete else { return }
        cleanedOffset = outcome.cleanedOffset
        if let known = tombstones {
            if pass.tombstoneLimit >= known.below { tombstones = (below: cleanedOffset, sinceMs: nowMs) }
        } else {
            tombstones = (below: cleanedOffset, sinceMs: nowMs)
        }
    }
}
