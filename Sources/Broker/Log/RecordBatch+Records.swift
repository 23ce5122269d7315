internal import System
import Wire

extension RecordBatch {
    /// No batch may unfold to more than this, whatever its few bytes promise.
    static let recordBytesMax = 128 << 20

    /// The records of a whole batch, decompressed.
    func records(of bytes: [UInt8]) throws(BrokerError) -> [UInt8] {
        guard let codec else { throw .refused(.corruptMessage, "codec \(attributes & 7)") }
        do throws(SystemError) {
            return try codec.decompress(
                bytes.span.extracting(Self.headerSize..<size), maxBytes: Self.recordBytesMax)
        } catch {
            throw BrokerError(.protocolError(.corruptMessage), "a batch that cannot be decompressed", cause: error)
        }
    }
}
