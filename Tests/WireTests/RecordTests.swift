import Testing
import Wire

private let id = "00000000-0000-4000-8000-000000000001"
private let chat = "00000000-0000-4000-8000-00000000000c"
private let user = "00000000-0000-4000-8000-00000000000a"
private let device = "00000000-0000-4000-8000-00000000000d"

private func message(_ extra: String) throws(JSONError) -> IncomingMessage {
    let bytes = [UInt8](#"{"id":"\#(id)","chat":"\#(chat)","from":"\#(user)","device":"\#(device)"\#(extra)}"#.utf8)
    return try IncomingMessage(decoding: bytes.span)
}

@Suite struct RecordTests {
    @Test func `a message survives writing and reading, its content untouched`() throws {
        let text =
            #"{"id":"\#(id)","chat":"\#(chat)","from":"\#(user)","device":"\#(device)","kind":"text","client_ts":5,"#
            + #""text":"h\u00e9 \ud83d\ude00","attachments":[{"u":"x"}],"reply_to":7,"meta_version":9}"#
        let bytes = [UInt8](text.utf8)
        let message = try IncomingMessage(decoding: bytes.span)
        #expect(message.metaVersion == 9)
        let content = message.text?.text(in: bytes.span)
        #expect(content == "hé 😀")
        var json = JSONWriter()
        message.write(to: &json, source: bytes.span)
        #expect(String(decoding: json.bytes, as: UTF8.self) == text)
    }

    @Test func `a message must have what its kind needs`() throws {
        #expect(try message(#","kind":"text","text":"a","unknown":{"x":[1]}"#).kind == .text)
        #expect(try message(#","kind":"edit","target":4,"text":"a""#).target == 4)
        #expect(try message(#","kind":"delete","target":4"#).text == nil)
        for bad in [
            #","kind":"text""#, #","kind":"edit","text":"a""#, #","kind":"edit","target":4"#, #","kind":"delete""#,
            #","kind":"shout","text":"a""#, #","text":"a""#, #","kind":"text","text":5"#,
            #","kind":"text","text":"a","attachments":{}"#, #","kind":"text","text":"a","reply_to":"x""#,
        ] {
            #expect(throws: JSONError.self, "\(bad)") { try message(bad) }
        }
    }

    @Test func `a signal survives writing and reading`() throws {
        let signal = Signal(
            chat: ChatID(chat)!, from: UserID(user)!, device: DeviceID(device)!, kind: .read, seq: 12, ts: 99)
        var json = JSONWriter()
        signal.write(to: &json)
        let again = try Signal(decoding: json.bytes.span)
        #expect(again == signal)
    }

    @Test func `a change envelope keeps its rows raw`() throws {
        let bytes =
            [UInt8](
                #"{"op":"u","before":null,"after":{"chat_id":"\#(chat)","user_id":"\#(user)","role":"admin","x":1},"#
                    .utf8)
            + [UInt8](#""source":{"table":"members","lsn":77,"txId":5,"ts_ms":1,"snapshot":false},"ts_ms":2}"#.utf8)
        let envelope = try ChangeEnvelope(decoding: bytes.span)
        #expect(envelope.operation == .update && envelope.lsn == 77 && envelope.transaction == 5)
        let isMembers = envelope.table.equals("members", in: bytes.span)
        #expect(isMembers)
        let row = try MemberRow(decoding: bytes.span.extracting(envelope.row))
        #expect(row.role == .admin && row.user == UserID(user)!)
    }

    @Test func `a membership comes back from its envelope as it was written, and no part of one does`() throws {
        let membership = ChatMembership(
            chat: ChatID(chat)!, metaVersion: 7, members: [.init(UserID(user)!, .admin), .init(UserID(id)!, .member)])
        var json = JSONWriter()
        membership.write(to: &json)
        let bytes = json.bytes
        let envelope = try ChangeEnvelope(decoding: bytes.span)
        let isMembership = envelope.table.equals(ChatMembership.table, in: bytes.span)
        #expect(isMembership && envelope.operation == .read && envelope.transaction == nil)
        let row = Array(bytes[envelope.row])
        #expect(try ChatMembership(decoding: row.span) == membership)
        for length in 0..<row.count {
            #expect(throws: JSONError.self) { try ChatMembership(decoding: row.span.extracting(0..<length)) }
        }
        for bad in [
            #"{"chat_id":"\#(chat)","meta_version":7}"#, #"{"chat_id":"\#(chat)","members":[]}"#,
            #"{"meta_version":7,"members":[]}"#,
            #"{"chat_id":"\#(chat)","meta_version":7,"members":[{"role":"admin"}]}"#,
            #"{"chat_id":"\#(chat)","meta_version":7,"members":{}}"#,
        ] { #expect(throws: JSONError.self) { try ChatMembership(decoding: bad.utf8.span) } }
    }

    @Test func `a delivery names its recipients or its large chat`() throws {
        let listed = [UInt8](#"{"to":["\#(user)","\#(id)"],"event":{"type":"message"}}"#.utf8)
        let record = try DeliveryRecord(decoding: listed.span)
        guard case .users(let range) = record.recipients else { return #expect(Bool(false)) }
        var users: [UserID] = []
        try DeliveryRecord.forEachUser(in: range, of: listed.span) { users.append($0) }
        #expect(users == [UserID(user)!, UserID(id)!])
        let event = String(showing: listed.span.extracting(record.event))
        #expect(event == #"{"type":"message"}"#)
        let large = [UInt8](#"{"chat":"\#(chat)","event":{}}"#.utf8)
        let unlisted = try DeliveryRecord(decoding: large.span)
        #expect(unlisted.recipients == .largeChat(ChatID(chat)!))
    }

    @Test func `a delivery may be for one device, or bring users into a large chat or out of it`() throws {
        let answer = [UInt8](#"{"to":["\#(user)"],"device":"\#(device)","event":{}}"#.utf8)
        #expect(try DeliveryRecord(decoding: answer.span).device == DeviceID(device))
        let enter = [UInt8](#"{"to":["\#(user)"],"enter":"\#(chat)","event":{}}"#.utf8)
        let entered = try DeliveryRecord(decoding: enter.span)
        #expect(entered.enters == ChatID(chat) && entered.leaves == nil && entered.device == nil)
        let leave = [UInt8](#"{"to":["\#(user)"],"leave":"\#(chat)","event":{}}"#.utf8)
        #expect(try DeliveryRecord(decoding: leave.span).leaves == ChatID(chat))
    }

    @Test func `an accepted message keeps what was sent and says its place`() throws {
        let sent = [UInt8](
            #"{"id":"\#(id)","chat":"\#(chat)","from":"\#(user)","device":"\#(device)","kind":"edit","target":3,"text":"a\n","attachments":[1],"client_ts":8}"#
                .utf8)
        let incoming = try IncomingMessage(decoding: sent.span)
        var json = JSONWriter()
        incoming.writeAccepted(seq: 7, ts: 9, to: &json, source: sent.span)
        let accepted = try AcceptedMessage(decoding: json.bytes.span)
        #expect(accepted.seq == 7 && accepted.ts == 9 && accepted.target == 3 && accepted.clientTs == 8)
        #expect(accepted.id == incoming.id && accepted.from == incoming.from && accepted.device == incoming.device)
        let text = accepted.text?.text(in: json.bytes.span)
        #expect(text == "a\n")
        for field in ["id", "chat", "seq", "from", "device", "ts", "kind"] {
            let without = String(decoding: json.bytes, as: UTF8.self).replacing("\"\(field)\":", with: "\"x\":")
            #expect(throws: JSONError.self) { try AcceptedMessage(decoding: [UInt8](without.utf8).span) }
        }
        json.removeAll()
        incoming.writeEvent(seq: 7, ts: 9, to: &json, source: sent.span)
        #expect(
            String(decoding: json.bytes, as: UTF8.self)
                == #"{"type":"message","chat":"\#(chat)","seq":7,"id":"\#(id)","from":"\#(user)","ts":9,"kind":"edit","text":"a\n","attachments":[1],"target":3,"client_ts":8}"#
        )
    }

    @Test func `a source position reads back and refuses nonsense`() {
        let position = SourcePosition(topic: "chat.incoming", partition: 3, offset: 1 << 40)
        let text = [UInt8](position.description.utf8)
        let again = SourcePosition(text: text.span)
        #expect(again == position)
        let tagged = SourcePosition(topic: "chat.incoming", tag: 0xbeef, partition: 3, offset: 7)
        #expect(tagged.description == "chat.incoming@0000beef/3/7")
        #expect(SourcePosition(text: Array(tagged.description.utf8).span) == tagged)
        for bad in [
            "", "a/b", "a/1/2/3", "/1/2", "a/-1/2", "a/1/-2", "a/1/x", "@0000beef/1/2", "a@/1/2", "a@beef/1/2",
            "a@0000beeg/1/2", "a@0000beef@0000beef/1/2",
        ] {
            let bytes = [UInt8](bad.utf8)
            let position = SourcePosition(text: bytes.span)
            #expect(position == nil, "\(bad)")
        }
    }
}

@Suite struct LogRunTests {
    @Test func `a seq rises where offsets begin again, is the offset in the first run, and fits JavaScript's numbers`()
    {
        let first = LogRun()
        let second = LogRun(generation: 1)
        #expect(first.seq(of: 4711) == 4711)
        #expect(second.seq(of: 0) > first.seq(of: 1 << 39))
        #expect(LogRun.offset(ofSeq: second.seq(of: 4711)) == 4711)
        #expect(LogRun.generation(ofSeq: second.seq(of: 4711)) == 1)
        #expect(LogRun(generation: LogRun.generationMax).seq(of: 1 << 40 - 1) == 1 << 53 - 1)
    }

    @Test func `runs of one partition have different tags, and come back from their text`() throws {
        let log = try #require(LogIdentity(topicID: UUID(high: 1, low: 2)))
        let other = try #require(LogIdentity(topicID: UUID(high: 1, low: 3)))
        let runs = [
            LogRun(log: log), LogRun(log: log, generation: 1), LogRun(log: other), LogRun(log: other, generation: 1),
        ]
        #expect(Set(runs.map(\.tag)).count == runs.count)
        #expect(LogRun().tag == nil)
        for run in runs + [LogRun(), LogRun(generation: 5)] { #expect(LogRun(run.description) == run) }
        for bad in ["", ".", "-", "-.", "-.x", "-.-1", "-.8192", "x.1", "\(UUID(high: 0, low: 0)).1"] {
            #expect(LogRun(bad) == nil, "\(bad)")
        }
    }
}

@Suite struct PushAndPresenceRecordTests {
    @Test func `a push keeps the newest event raw`() throws {
        var json = JSONWriter()
        let event = [UInt8](#"{"type":"message","seq":4,"text":"\u00e9"}"#.utf8)
        PushRecord.write(user: UserID(user)!, chat: ChatID(chat)!, count: 3, at: 77, last: event.span, to: &json)
        let record = try PushRecord(decoding: json.bytes.span)
        #expect(record.count == 3 && record.at == 77)
        #expect(Array(json.bytes[record.last]) == event)
        for bad in [
            #"{}"#, #"{"user":"\#(user)","chat":"\#(chat)","count":0,"last":{}}"#,
            #"{"user":"\#(user)","chat":"\#(chat)","count":1,"last":[]}"#,
        ] {
            let bytes = [UInt8](bad.utf8)
            #expect(throws: JSONError.self, "\(bad)") { try PushRecord(decoding: bytes.span) }
        }
    }

    @Test func `presence survives writing and reading`() throws {
        let record = PresenceRecord(user: UserID(user)!, status: .offline, lastSeen: 77)
        var json = JSONWriter()
        record.write(to: &json)
        let again = try PresenceRecord(decoding: json.bytes.span)
        #expect(again == record)
    }
}
