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
