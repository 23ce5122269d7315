internal import CRdKafka
internal import Glibc

/// Where a record's headers are: still encoded, or with librdkafka.
@unsafe
enum MessageHeaders {
    case none
    /// Their bytes, how many bytes that are, and how many headers are said to be in them.
    case encoded(UnsafePointer<UInt8>, Int, Int)
    case library(UnsafePointer<rd_kafka_message_t>)

    /// Calls `body` with each, in order. The spans are valid during the call.
    func forEach(_ body: (_ name: Span<UInt8>, _ value: Span<UInt8>?) -> Void) {
        switch unsafe self {
        case .none: break
        case .encoded(let start, let byteCount, let count):
            let bytes = unsafe Span(_unsafeStart: start, count: byteCount)
            var position = 0
            for _ in 0..<count {
                guard let name = IncomingRecord.field(bytes, at: &position, end: byteCount)?.range,
                    let value = IncomingRecord.field(bytes, at: &position, end: byteCount)
                else { return }
                let span: Span<UInt8>? = if let range = value.range { bytes.extracting(range) } else { nil }
                body(bytes.extracting(name), span)
            }
        case .library(let message):
            var headers: OpaquePointer?
            guard unsafe rd_kafka_message_headers(message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR else { return }
            var index = 0
            var name: UnsafePointer<CChar>?
            var bytes: UnsafeRawPointer?
            var count = 0
            while unsafe rd_kafka_header_get_all(headers, index, &name, &bytes, &count) == RD_KAFKA_RESP_ERR_NO_ERROR {
                index += 1
                guard let name = unsafe name else { continue }
                let text = unsafe Span(
                    _unsafeStart: UnsafeRawPointer(name).assumingMemoryBound(to: UInt8.self), count: strlen(name))
                var value: Span<UInt8>?
                if let bytes = unsafe bytes {
                    value = unsafe Span(_unsafeStart: bytes.assumingMemoryBound(to: UInt8.self), count: count)
                }
                body(text, value)
            }
        }
    }
}
