/// A topic as this consumer numbers it: messages carry it instead of a name, so that telling topics apart on the hot
/// path compares integers. See `Consumer.topic(_:)` and `Consumer.name(of:)`.
public struct ConsumerTopic: Hashable, Sendable {
    public let index: Int

    init(index: Int) { self.index = index }
}

/// One record, lent by the batch that owns it.
@safe
public struct Message: ~Escapable {
    private let slot: UnsafePointer<MessageBatch.Slot>

    @_lifetime(borrow owner)
    init(_ slot: UnsafePointer<MessageBatch.Slot>, borrowing owner: borrowing MessageBatch) {
        unsafe self.slot = slot
    }

    public var topic: ConsumerTopic { unsafe slot.pointee.topic }
    public var partition: Int32 { unsafe slot.pointee.partition }
    public var offset: Int64 { unsafe slot.pointee.offset }

    /// Of the leader that took it: kept beside a position, it tells later whether the log was cut off below that. nil
    /// where librdkafka fetches, which does not say.
    public var leaderEpoch: Int32? {
        let epoch = unsafe slot.pointee.leaderEpoch
        return epoch >= 0 ? epoch : nil
    }

    /// nil when the record has no key.
    public var key: Span<UInt8>? {
        @_lifetime(copy self)
        get {
            guard let bytes = unsafe slot.pointee.key else { return nil }
            return unsafe span(bytes, slot.pointee.keyCount)
        }
    }

    /// nil is a tombstone; an empty value is not.
    public var value: Span<UInt8>? {
        @_lifetime(copy self)
        get {
            guard let bytes = unsafe slot.pointee.value else { return nil }
            return unsafe span(bytes, slot.pointee.valueCount)
        }
    }

    /// Milliseconds since the epoch; 0 when the record has no timestamp.
    public var timestampMs: Int64 { unsafe slot.pointee.timestampMs }

    /// True when the broker stamped the record on arrival, false when its producer did.
    public var hasLogAppendTime: Bool { unsafe slot.pointee.hasLogAppendTime }

    /// The last header of that name; nil if there is none or it has no value.
    @_lifetime(copy self)
    public func header(_ name: StaticString) -> Span<UInt8>? {
        var found: (start: UnsafePointer<UInt8>, count: Int)?
        let nothing = unsafe UnsafePointer(name.utf8Start)
        unsafe slot.pointee.headers.forEach { candidate, value in
            guard isEqual(candidate, name) else { return }
            unsafe found = nil
            guard let value else { return }
            unsafe value.withUnsafeBufferPointer { unsafe found = ($0.baseAddress ?? nothing, $0.count) }
        }
        guard let found = unsafe found else { return nil }
        return unsafe span(found.start, found.count)
    }

    /// Every header, in order; the spans are valid during the call.
    public func forEachHeader(_ body: (_ name: String, _ value: Span<UInt8>?) -> Void) {
        unsafe slot.pointee.headers.forEach { name, value in
            let text = unsafe name.withUnsafeBufferPointer { unsafe String(decoding: $0, as: UTF8.self) }
            body(text, value)
        }
    }

    private func isEqual(_ found: Span<UInt8>, _ name: StaticString) -> Bool {
        guard found.count == name.utf8CodeUnitCount else { return false }
        for index in 0..<found.count where unsafe found[index] != name.utf8Start[index] { return false }
        return true
    }

    @_lifetime(copy self)
    private func span(_ bytes: UnsafePointer<UInt8>, _ count: Int) -> Span<UInt8> {
        unsafe _overrideLifetime(Span(_unsafeStart: bytes, count: count), copying: self)
    }
}
