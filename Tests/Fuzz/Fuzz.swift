// Fuzzers for what decodes bytes of strangers: `scripts/fuzz NAME [libFuzzer options]`.
//
// One program for all of them, since libFuzzer calls one function: `FANOUT_FUZZ_TARGET` says which decoder it feeds. A decoder
// may refuse whatever it likes; it must not trap, hang, or make of bytes in pieces something else than of the whole.

@testable import Ingest
import PushLink
import System
import WebSocket
import Wire

private let targets: [String: @Sendable ([UInt8]) -> Void] = [
    "http": http, "websocket": websocket, "token": token, "frame": frame, "json": json, "link": link,
]

private let target: @Sendable ([UInt8]) -> Void = {
    let name = Environment["FANOUT_FUZZ_TARGET"] ?? ""
    guard let target = targets[name] else {
        preconditionFailure("FANOUT_FUZZ_TARGET must be one of \(targets.keys.sorted())")
    }
    return target
}()

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOne(_ data: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
    unsafe target([UInt8](UnsafeBufferPointer(start: data, count: count)))
    return 0
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
    _ = try? InstanceRecord(decoding: bytes.span)
}

private func link(_ bytes: [UInt8]) {
    var link = InstanceLink(
        identity: LinkIdentity(name: "fuzz", epoch: 1), secret: LinkSecret { _ in [UInt8](repeating: 1, count: 32) },
        nonce: [UInt8](repeating: 2, count: 32), nowMs: 0)
    link.receive(bytes.span, nowMs: 0)
    while let event = try? link.next() {
        if case .message(.batch(let batch)) = event { _ = link.sessions(of: batch) }
    }
}
