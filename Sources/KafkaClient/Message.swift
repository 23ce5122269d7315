internal import CRdKafka

/// A topic as this consumer numbers it: messages carry it instead of a name, so that telling topics apart on the hot
/// path compares integers. See `Consumer.topic(_:)` and `Consumer.name(of:)`.
public struct ConsumerTopic: Hashable, Sendable {
    public let index: Int

    init(index: Int) { self.index = index }
}

/// One record, lent by the batch that owns it.
@safe
public struct Message: ~Escapable {
    let raw: UnsafePointer<rd_kafka_message_t>
    public let topic: ConsumerTopic

    @_lifetime(borrow owner)
    init(_ raw: UnsafePointer<rd_kafka_message_t>, _ topic: ConsumerTopic, borrowing owner: borrowing MessageBatch) {
        unsafe self.raw = raw
        self.topic = topic
    }

    public var partition: Int32 { unsafe raw.pointee.partition }
    public var offset: Int64 { unsafe raw.pointee.offset }

    /// nil when the record has no key.
    public var key: Span<UInt8>? {
        @_lifetime(copy self)
        get {
            guard let bytes = unsafe raw.pointee.key else { return nil }
            return unsafe span(bytes, raw.pointee.key_len)
        }
    }

    /// nil is a tombstone; an empty value is not.
    public var value: Span<UInt8>? {
        @_lifetime(copy self)
        get {
            guard let bytes = unsafe raw.pointee.payload else { return nil }
            return unsafe span(bytes, raw.pointee.len)
        }
    }

    /// Milliseconds since the epoch; 0 when the record has no timestamp.
    public var timestampMs: Int64 {
        var type = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE
        return unsafe max(0, rd_kafka_message_timestamp(raw, &type))
    }

    /// True when the broker stamped the record on arrival, false when its producer did.
    public var hasLogAppendTime: Bool {
        var type = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE
        _ = unsafe rd_kafka_message_timestamp(raw, &type)
        return type == RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME
    }

    /// The last header of that name; nil if there is none or it has no value.
    @_lifetime(copy self)
    public func header(_ name: StaticString) -> Span<UInt8>? {
        var headers: OpaquePointer?
        guard unsafe rd_kafka_message_headers(raw, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR else { return nil }
        var bytes: UnsafeRawPointer?
        var count = 0
        let found = unsafe name.withUTF8Buffer { $0.baseAddress }.map {
            unsafe UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self)
        }
        guard let found = unsafe found,
            unsafe rd_kafka_header_get_last(headers, found, &bytes, &count) == RD_KAFKA_RESP_ERR_NO_ERROR,
            let bytes = unsafe bytes
        else { return nil }
        return unsafe span(UnsafeMutableRawPointer(mutating: bytes), count)
    }

    /// Every header, in order; the spans are valid during the call.
    public func forEachHeader(_ body: (_ name: String, _ value: Span<UInt8>?) -> Void) {
        var headers: OpaquePointer?
        guard unsafe rd_kafka_message_headers(raw, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR else { return }
        var index = 0
        var name: UnsafePointer<CChar>?
        var bytes: UnsafeRawPointer?
        var count = 0
        while unsafe rd_kafka_header_get_all(headers, index, &name, &bytes, &count) == RD_KAFKA_RESP_ERR_NO_ERROR {
            index += 1
            guard let name = unsafe name else { continue }
            if let bytes = unsafe bytes {
                body(unsafe String(cString: name), unsafe span(UnsafeMutableRawPointer(mutating: bytes), count))
            } else {
                body(unsafe String(cString: name), nil)
            }
        }
    }

    @_lifetime(copy self)
    private func span(_ bytes: UnsafeMutableRawPointer, _ count: Int) -> Span<UInt8> {
        let span = unsafe Span<UInt8>(_unsafeStart: bytes.assumingMemoryBound(to: UInt8.self), count: count)
        return unsafe _overrideLifetime(span, copying: self)
    }
}
