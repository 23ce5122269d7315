import KafkaClient
import Runtime
import StreamJoin
import System
import TestSupport
import Testing
import Wire

/// Change envelopes as CDC writes them.
enum Rows {
    static func member(
        _ chat: ChatID, _ user: UserID, _ op: String, role: String = "member", tx: Int64?, again: Bool = false
    ) -> (key: [UInt8], value: [UInt8]) {
        let row = #"{"chat_id":"\#(chat)","user_id":"\#(user)","role":"\#(role)"}"#
        return (
            [UInt8](#"{"chat_id":"\#(chat)","user_id":"\#(user)"}"#.utf8), envelope("members", op, row, tx, again)
        )
    }

    static func chat(
        _ chat: ChatID, _ op: String, version: Int64, tx: Int64?, again: Bool = false
    ) -> (key: [UInt8], value: [UInt8]) {
        let row = #"{"chat_id":"\#(chat)","kind":"group","title":"t","meta_version":\#(version)}"#
        return ([UInt8](#"{"chat_id":"\#(chat)"}"#.utf8), envelope("chats", op, row, tx, again))
    }

    private static func envelope(
        _ table: String, _ op: String, _ row: String, _ tx: Int64?, _ again: Bool
    ) -> [UInt8] {
        let (before, after) = op == "d" ? (row, "null") : ("null", row)
        let transaction = tx.map { "\($0)" } ?? "null"
        // A snapshot is taken after what there was before it.
        let lsn = tx ?? 1 << 40
        return [UInt8](
            #"{"op":"\#(op)","before":\#(before),"after":\#(after),"source":{"table":"\#(table)","lsn":\#(lsn),"txId":\#(transaction)\#(again ? #","again":true"# : "")},"ts_ms":1}"#
                .utf8)
    }
}

extension IncomingMessage {
    static func text(
        _ text: String, from user: UserID, in chat: ChatID, id: MessageID = .random(), device: DeviceID = .random(),
        metaVersion: Int64 = 0
    ) -> [UInt8] {
        [UInt8](
            #"{"id":"\#(id)","chat":"\#(chat)","from":"\#(user)","device":"\#(device)","kind":"text","text":"\#(text)","meta_version":\#(metaVersion)}"#
                .utf8)
    }

    static func change(
        _ kind: String, _ target: Int64, from user: UserID, in chat: ChatID, id: MessageID = .random(),
        metaVersion: Int64 = 0
    ) -> [UInt8] {
        [UInt8](
            #"{"id":"\#(id)","chat":"\#(chat)","from":"\#(user)","device":"\#(DeviceID.random())","kind":"\#(kind)","target":\#(target),"text":"new","meta_version":\#(metaVersion)}"#
                .utf8)
    }
}

func string(_ bytes: Span<UInt8>) -> String { String(showing: bytes) }

/// A delivery as a test looks at it.
struct Delivered: Equatable, CustomStringConvertible {
    var partition: Int32
    var source: String
    var to: [UserID]
    var largeChat: ChatID?
    var record: String

    init(partition: Int32, source: String, value: Span<UInt8>) throws(JSONError) {
        self.partition = partition
        self.source = source
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
