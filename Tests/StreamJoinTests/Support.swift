import KafkaClient
import Runtime
import StreamJoin
import System
import TestSupport
import Testing
import Wire

func string(_ bytes: Span<UInt8>) -> String { String(showing: bytes) }

/// A delivery as a test looks at it.
struct Delivered: Equatable, CustomStringConvertible {
    var partition: Int32
    /// Without the tag of its log.
    var source: String
    var tag: UInt32?
    var to: [UserID]
    var largeChat: ChatID?
    var record: String

    init(partition: Int32, source: String, value: Span<UInt8>) throws(JSONError) {
        self.partition = partition
        var place = SourcePosition(text: Array(source.utf8).span)
        tag = place?.tag
        place?.tag = nil
        self.source = place?.description ?? source
        let decoded = try DeliveryRecord(decoding: value)
        var users: [UserID] = []
        switch decoded.recipients {
        case .users(let range): try DeliveryRecord.forEachUser(in: range, of: value) { users.append($0) }
        case .largeChat(let chat): largeChat = chat
        }
        to = users
        record = String(showing: value)
    }

    var description: String { "\(partition) \(source) \(record)" }
}
