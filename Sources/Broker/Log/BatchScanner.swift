internal import System

/// Walks the batches of a segment file in order, reading ahead in chunks.
struct BatchScanner {
    private let file: SharedFile
    private let path: String
    private let limit: Int
    private let chunkBytes: Int
    private var chunk: [UInt8] = []
    private var chunkStart: Int
    /// Where the next batch starts.
    private(set) var position: Int
    /// Where the batch that was returned last starts.
    private(set) var batchStart: Int

    init(_ file: SharedFile, path: String, from position: Int, limit: Int, chunkBytes: Int = 32 << 10) {
        self.file = file
        self.path = path
        self.position = position
        self.batchStart = position
        self.limit = limit
        self.chunkBytes = chunkBytes
        chunkStart = position
    }

    /// What stopped the scan before its limit.
    private(set) var damage: RecordBatch.Malformed?

    /// The next batch's header; `nil` at the end, or where `damage` is.
    mutating func next() throws(BrokerError) -> RecordBatch? {
        guard position < limit else { return nil }
        do throws(RecordBatch.Malformed) {
            let header = try read(position, min(RecordBatch.headerSize, limit - position))
            let batch = try RecordBatch(header: chunk.span.extracting(header))
            guard position + batch.size <= limit else { throw .incomplete }
            batchStart = position
            position += batch.size
            return batch
        } catch {
            if let failure { throw failure }
            damage = error
            return nil
        }
    }

    /// The next batch with its checksum verified, and its bytes.
    mutating func nextVerified() throws(BrokerError) -> RecordBatch? {
        guard let header = try next() else { return nil }
        do throws(RecordBatch.Malformed) {
            let range = try read(batchStart, header.size)
            return try RecordBatch(verifying: chunk.span.extracting(range))
        } catch {
            position = batchStart
            if let failure { throw failure }
            damage = error
            return nil
        }
    }

    /// The bytes of the batch that was returned last.
    mutating func bytes(of batch: RecordBatch) throws(BrokerError) -> [UInt8] {
        do throws(RecordBatch.Malformed) {
            return [UInt8](chunk[try read(batchStart, batch.size)])
        } catch {
            throw failure ?? BrokerError(.corrupt, "\(path) is damaged at byte \(batchStart)")
        }
    }

    private var failure: BrokerError?

    /// Makes `count` bytes at `start` present and says where they are in the chunk.
    private mutating func read(_ start: Int, _ count: Int) throws(RecordBatch.Malformed) -> Range<Int> {
        if start < chunkStart || start + count > chunkStart + chunk.count {
            do throws(SystemError) {
                chunk = try file.file.read(at: Int64(start), count: min(max(count, chunkBytes), limit - start))
                chunkStart = start
            } catch {
                failure = BrokerError(.storage, "cannot read \(path)", cause: error)
                throw .incomplete
            }
            guard chunk.count >= count else { throw .incomplete }
        }
        return start - chunkStart..<start - chunkStart + count
    }
}
