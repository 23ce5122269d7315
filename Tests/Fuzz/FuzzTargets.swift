@testable import Broker
@testable import CDC
@testable import Ingest
@testable import KafkaClient
import PushLink
import System
import WebSocket
import Wire

/// A decoder of bytes that strangers send, or that a crash left behind, as a fuzzer sees it: `scripts/fuzz NAME`, and
/// `FuzzTests` for a moment in every run. A decoder may refuse whatever it likes; it must not trap, hang, or make of
/// bytes in pieces something else than of the whole.
struct FuzzTarget: Sendable {
    let name: String
    let feed: @Sendable ([UInt8]) -> Void

    static let all = [
        FuzzTarget(name: "http", feed: http), FuzzTarget(name: "reply", feed: reply),
        FuzzTarget(name: "websocket", feed: websocket), FuzzTarget(name: "token", feed: token),
        FuzzTarget(name: "frame", feed: frame), FuzzTarget(name: "json", feed: json),
        FuzzTarget(name: "link", feed: link), FuzzTarget(name: "worker", feed: worker),
        FuzzTarget(name: "kafka", feed: kafka), FuzzTarget(name: "segment", feed: segment),
        FuzzTarget(name: "journal", feed: journal), FuzzTarget(name: "pgoutput", feed: pgoutput),
        FuzzTarget(name: "fetch", feed: fetch),
    ]
}

private func http(_ bytes: [UInt8]) {
    func parse(_ size: Int) -> ([HTTPRequest], HTTPError?) {
        var parser = HTTPParser()
        var requests: [HTTPRequest] = []
        for start in stride(from: 0, to: bytes.count, by: size) {
            let piece = Array(bytes[start..<min(start + size, bytes.count)])
            var offset = 0
            do throws(HTTPError) {
                while let request = try parser.next(piece.span, &offset) { requests.append(request) }
            } catch {
                return (requests, error)
            }
        }
        return (requests, nil)
    }
    let (whole, cut) = (parse(max(bytes.count, 1)), parse(1))
    precondition(whole.0 == cut.0 && whole.1 == cut.1, "pieces make a difference")
    for request in whole.0 {
        _ = request.segments
        _ = request.query("device")
        _ = try? ServerHandshake(request)
    }
}

private func reply(_ bytes: [UInt8]) {
    func parse(_ size: Int) -> ([HTTPReply], HTTPError?) {
        var parser = HTTPReplyParser()
        var replies: [HTTPReply] = []
        for start in stride(from: 0, to: bytes.count, by: size) {
            let piece = Array(bytes[start..<min(start + size, bytes.count)])
            var offset = 0
            do throws(HTTPError) {
                while let reply = try parser.next(piece.span, &offset) { replies.append(reply) }
            } catch {
                return (replies, error)
            }
        }
        if let reply = parser.end() { replies.append(reply) }
        return (replies, nil)
    }
    let (whole, cut) = (parse(max(bytes.count, 1)), parse(1))
    precondition(whole.0 == cut.0 && whole.1 == cut.1, "pieces make a difference")
}

private func websocket(_ bytes: [UInt8]) {
    func receive(_ size: Int) -> ([[UInt8]], Bool, [UInt8]) {
        var connection = Connection(role: .server, mayCompress: true)
        let limits = Connection.Limits(messageBytesMax: 4096, fragmentsMax: 16)
        var (events, message, output) = ([[UInt8]](), [UInt8](), [UInt8]())
        for start in stride(from: 0, to: bytes.count, by: size) {
            let piece = Array(bytes[start..<min(start + size, bytes.count)])
            var offset = 0
            do throws(ProtocolViolation) {
                while let event = try connection.next(piece.span, &offset, into: &message, limits: limits) {
                    if case .message(.text, isCompressed: true) = event {
                        var deflate = LoopDeflate()
                        _ = try? deflate.text(message, bytesMax: 4096)
                    }
                    events.append(message)
                }
            } catch {
                return (events, true, output + connection.takeOutput())
            }
            output += connection.takeOutput()
        }
        return (events, false, output)
    }
    let (whole, cut) = (receive(max(bytes.count, 1)), receive(1))
    precondition(whole == cut, "pieces make a difference")
}

private func token(_ bytes: [UInt8]) {
    guard let verifier = try? TokenVerifier(TokenConfiguration(keys: .hs256(secret: [UInt8](repeating: 7, count: 32))))
    else { return }
    precondition((try? verifier.verify(String(decoding: bytes, as: UTF8.self), nowMs: 0)) == nil, "a forged token")
    // What follows the signature's check has to bear anything as well.
    if let token = try? Token("e30." + Base64.encode(bytes, .url) + ".AA") {
        _ = try? token.claims(nowMs: 0, skewMs: 0, audience: nil)
    }
}

private func frame(_ bytes: [UInt8]) {
    _ = try? ClientFrame(decoding: bytes.span)
    _ = MembershipChange(event: bytes.span)
    _ = try? RequestBody(bytes)
}

private func json(_ bytes: [UInt8]) {
    func walk() throws(JSONError) {
        var reader = JSONReader(bytes.span)
        try reader.skipValue()
        try reader.finish()
    }
    try? walk()
    _ = try? IncomingMessage(decoding: bytes.span)
    _ = try? DeliveryRecord(decoding: bytes.span)
    _ = try? ChangeEnvelope(decoding: bytes.span)
    _ = try? ChatMembership(decoding: bytes.span)
    _ = try? InstanceRecord(decoding: bytes.span)
}

/// Whoever knows no secret gets past no proof; here everyone knows it, so that what lies behind is reached.
let fuzzSecret = LinkSecret { _ in [UInt8](repeating: 1, count: 32) }

private func link(_ bytes: [UInt8]) {
    var link = InstanceLink(
        identity: LinkIdentity(name: "fuzz", epoch: 1), secret: fuzzSecret, nonce: [UInt8](repeating: 2, count: 32),
        nowMs: 0)
    link.receive(bytes.span, nowMs: 0)
    while let event = try? link.next() {
        if case .message(.batch(let batch)) = event { _ = link.sessions(of: batch) }
    }
}

private func worker(_ bytes: [UInt8]) {
    var link = WorkerLink(
        identity: LinkIdentity(name: "fuzz", epoch: 1), secret: fuzzSecret, nonce: [UInt8](repeating: 2, count: 32),
        nowMs: 0)
    _ = link.takeOutput(nowMs: 0)
    link.receive(bytes.span, nowMs: 0)
    while let _ = try? link.next() {}
}

/// The body of a request, behind two bytes that choose which and its version.
private func kafka(_ bytes: [UInt8]) {
    guard bytes.count >= 2 else { return }
    let type = API.requests[Int(bytes[0]) % API.requests.count]
    let version = type.api.versions.lowerBound + Int16(bytes[1]) % Int16(type.api.versions.count)
    let body = bytes.span.extracting(2..<bytes.count)
    var reader = RequestReader(body, flexible: version >= type.api.flexibleFrom)
    let request = try? type.init(from: &reader, version: version)
    guard let produce = request as? ProduceRequest else { return }
    for partition in produce.topics.flatMap(\.partitions) {
        guard let range = partition.records, let batch = try? RecordBatch(verifying: body.extracting(range)),
            let records = try? batch.records(of: [UInt8](copying: body.extracting(range)))
        else { continue }
        walk(records)
    }
}

private func walk(_ records: [UInt8]) {
    var position = 0
    while let record = Record(records.span, at: position) {
        precondition(record.range.upperBound > position, "no way forward")
        position = record.range.upperBound
        guard let key = record.key else { continue }
        if let value = record.value {
            _ = try? GroupRecord(key: records.span.extracting(key), value: records.span.extracting(value))
        } else {
            _ = try? GroupRecord(key: records.span.extracting(key), value: nil)
        }
    }
}

/// A log whose one file holds these bytes: it is cut off at the first bad batch, and what is left can be read.
private func segment(_ bytes: [UInt8]) {
    do {
        let directory = try Directory.createTemporary(prefix: "fanout-fuzz")
        defer { try? Directory.removeAll(directory) }
        let file = Segment(directory: directory, partition: 0, baseOffset: 0)
        try File(file.logPath, .write, create: .truncate).write(bytes, at: 0)
        let log = PartitionLog(
            topic: 1, partition: 0, leaderEpoch: 0, directory: directory, files: OpenFiles(limit: 2),
            config: TopicConfig())
        let report = try log.recover([(0, bytes.count)], PartitionLog.Recovered(), nowMs: 0)
        precondition(log.end.position + report.truncatedBytes == bytes.count, "bytes are missing")
        var next: Int64 = 0
        while next < log.endOffset {
            var output: [UInt8] = []
            _ = try log.read(from: next, maxBytes: 1000, atLeastOne: true, into: &output)
            guard let batch = try? RecordBatch(header: output.span) else { break }
            precondition(batch.nextOffset > next, "no way forward")
            next = batch.nextOffset
            if let records = try? batch.records(of: output) { walk(records) }
        }
        _ = try log.search(notBefore: 1) { (batch, _) in batch.maxTimestamp > .max - 1 ? batch : nil }
    } catch {
        preconditionFailure("\(error)")
    }
}

/// The other files of the broker: they may be refused as a whole, and the journal is read up to its first bad entry.
private func journal(_ bytes: [UInt8]) {
    Journal.replay(bytes.span) { (header, payload) in
        precondition(payload.count == header.length)
        _ = try? RecordBatch(verifying: payload)
    }
    _ = try? Checkpoint(decoding: bytes)
    _ = try? Catalog(decoding: bytes)
    // Behind a right checksum.
    for magic in ["FNTCKP1\n", "FNTCAT1\n"] {
        var file = Array(magic.utf8) + [0, 0, 0, 0] + bytes
        file.setBigEndian(CRC32C.checksum(bytes.span), at: 8)
        _ = try? Checkpoint(decoding: file)
        _ = try? Catalog(decoding: file)
    }
}

private func pgoutput(_ bytes: [UInt8]) {
    _ = try? ReplicationMessage.decode(bytes.span)
    var decoder = PgOutputDecoder()
    _ = try? decoder.decode(bytes.span)
    // Inside a stream messages have another form.
    decoder = PgOutputDecoder(isInStream: true)
    _ = try? decoder.decode(bytes.span)
}

/// An answer to a question for records, and then the same bytes as batches whose checksums somebody has made right.
private func fetch(_ bytes: [UInt8]) {
    func drain(_ arrived: IncomingRecords) {
        var (records, last) = (arrived, -1 as Int64)
        while true {
            switch records.next() {
            case .record(let found):
                precondition(found.offset > last, "a record comes twice")
                last = found.offset
                let ends = [found.record.key, found.record.value, found.record.headers].map { $0?.upperBound ?? 0 }
                precondition(records.contentStart + (ends.max() ?? 0) <= records.content.count, "beyond the batch")
            case .broken: continue
            case .end: return
            }
        }
    }
    let answer = AnswerBytes(copying: bytes.span)
    let question = AskedPartitions(
        partitions: (0..<3).map { AskedPartition(place: Int($0), topic: 0, partition: $0, life: 1, from: 0) },
        topics: ["t"])
    var reader = AnswerReader(answer.span)
    if let fetched = try? FetchAnswer(&reader, question, version: 10) {
        for partition in fetched.partitions {
            var state = IncomingPartition(reset: .earliest, bytesMax: 1000)
            state.assign(.offset(0))
            state.asked()
            if let records = state.answered(
                answer.span, partition.records, end: partition.end, life: state.life, hadRoom: true, nowNs: 1)
            {
                drain(IncomingRecords(answer, records.range, from: records.from, aborted: partition.aborted))
            }
        }
    }
    var other = AnswerReader(answer.span)
    _ = try? OffsetAnswer.read(&other, question, version: 2)
    drain(IncomingRecords(answer, 0..<bytes.count, from: 0, aborted: []))
}
