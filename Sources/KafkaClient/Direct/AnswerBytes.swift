/// The bytes of one answer, at an address that they keep: records are read where they lie, for as long as somebody holds
/// this.
@safe
final class AnswerBytes {
    let count: Int
    private let bytes: UnsafeMutablePointer<UInt8>
    private var filled = 0

    init(count: Int) {
        self.count = count
        unsafe bytes = .allocate(capacity: max(1, count))
    }

    convenience init(copying span: Span<UInt8>) {
        self.init(count: span.count)
        _ = fill(from: span)
    }

    deinit { unsafe bytes.deallocate() }

    var isFull: Bool { filled == count }

    /// Takes what is missing, and answers how much that was.
    func fill(from span: Span<UInt8>) -> Int {
        let taken = min(span.count, count - filled)
        guard taken > 0 else { return 0 }
        unsafe span.withUnsafeBufferPointer { source in
            guard let start = source.baseAddress else { return }
            unsafe (bytes + filled).update(from: start, count: taken)
        }
        filled += taken
        return taken
    }

    /// Where they begin.
    @unsafe var start: UnsafePointer<UInt8> { unsafe UnsafePointer(bytes) }

    var span: Span<UInt8> {
        @_lifetime(borrow self)
        get { unsafe _overrideLifetime(Span(_unsafeStart: UnsafePointer(bytes), count: filled), borrowing: self) }
    }
}

/// Puts answers together from the pieces in which they come: each stands behind its size.
struct AnswerInbox {
    private let bytesMax: Int
    private var size: UInt32 = 0
    private var sizeBytes = 0
    private var partial: AnswerBytes?

    init(bytesMax: Int) { self.bytesMax = bytesMax }

    mutating func removeAll() { self = AnswerInbox(bytesMax: bytesMax) }

    /// The next whole answer; nil when `position` has come to the end of the bytes.
    mutating func next(_ bytes: Span<UInt8>, _ position: inout Int) throws(AnswerReader.Malformed) -> AnswerBytes? {
        if partial == nil {
            while sizeBytes < 4 {
                guard position < bytes.count else { return nil }
                size = size << 8 | UInt32(bytes[position])
                sizeBytes += 1
                position += 1
            }
            guard size >= 4, size <= bytesMax else { throw AnswerReader.Malformed() }
            partial = AnswerBytes(count: Int(size))
        }
        guard let answer = partial else { return nil }
        position += answer.fill(from: bytes.extracting(position..<bytes.count))
        guard answer.isFull else { return nil }
        (partial, size, sizeBytes) = (nil, 0, 0)
        return answer
    }
}
