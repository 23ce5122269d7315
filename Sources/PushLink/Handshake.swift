import System
import Wire

/// The shared secret of all workers and instances, as the one thing that is done with it: HMAC-SHA-256.
public struct LinkSecret: Sendable {
    let mac: @Sendable (_ message: [UInt8]) -> [UInt8]

    /// `mac` answers the HMAC-SHA-256 of a message under the secret: 32 bytes.
    public init(mac: @escaping @Sendable (_ message: [UInt8]) -> [UInt8]) {
        self.mac = mac
    }

    public init(_ secret: [UInt8]) {
        precondition(!secret.isEmpty, "an empty link secret")
        self.init { Crypto.hmacSHA256(key: secret, $0.span) }
    }

    /// 32 bytes that nobody can predict, for one link's handshake.
    public static func nonce() -> [UInt8] { Crypto.randomBytes(Handshake.nonceCount) }
}

/// Mutual proof of the shared secret. The worker's `hello` and the instance's `challenge` each bring a fresh nonce; each
/// side's proof is a MAC over its role and everything both have said, so a proof can be neither replayed, nor reflected,
/// nor moved to a link on which something else was said. The worker proves first: whoever merely finds the port open
/// learns nothing made with the secret.
struct Handshake {
    static let nonceCount = 32
    static let proofCount = 32
    static let magic: [UInt8] = Array("FANOUT-PUSH-LINK".utf8)

    /// `hello` and `challenge` exactly as sent.
    var transcript: [UInt8] = []

    enum Role: String {
        case worker = "fanout push link: worker\n"
        case instance = "fanout push link: instance\n"
    }

    func proof(of role: Role, _ secret: LinkSecret) -> [UInt8] {
        secret.mac(Array(role.rawValue.utf8) + transcript)
    }

    /// Compares in a time that does not depend on where the two differ.
    func verify(_ proof: [UInt8], of role: Role, _ secret: LinkSecret) -> Bool {
        let expected = self.proof(of: role, secret)
        guard expected.count == Self.proofCount, proof.count == Self.proofCount else { return false }
        var difference: UInt8 = 0
        for index in 0..<Self.proofCount { difference |= expected[index] ^ proof[index] }
        return difference == 0
    }

    struct Hello {
        let identity: LinkIdentity
        let nonce: [UInt8]
        let version: UInt16

        func encode(_ type: FrameType) -> [UInt8] {
            var output: [UInt8] = []
            let frame = output.beginFrame(type)
            output.append(contentsOf: Handshake.magic)
            output.appendLittle(version)
            output.append(contentsOf: nonce)
            output.appendLittle(identity.epoch)
            output.append(shortText: identity.name)
            output.endFrame(frame)
            return output
        }

        static func decode(_ frame: Frame, in buffer: [UInt8]) throws(LinkError) -> Hello {
            var body = BodyReader(buffer.span.extracting(frame.body), base: frame.body.lowerBound)
            guard try body.array(Handshake.magic.count) == Handshake.magic else {
                throw LinkError(.protocolViolation, "the peer does not speak the push link")
            }
            let version = try body.integer(UInt16.self)
            let nonce = try body.array(Handshake.nonceCount)
            let epoch = try body.integer(UInt64.self)
            let name = try body.shortText()
            guard !name.isEmpty, name.utf8.count <= LinkLimits.nameCountMax else {
                throw LinkError(.protocolViolation, "a name of \(name.utf8.count) bytes")
            }
            // What a later version adds at the end is skipped: that is how two versions meet.
            return Hello(identity: LinkIdentity(name: name, epoch: epoch), nonce: nonce, version: version)
        }
    }

    static func encode(proof: [UInt8], _ type: FrameType) -> [UInt8] {
        var output: [UInt8] = []
        let frame = output.beginFrame(type)
        output.append(contentsOf: proof)
        output.endFrame(frame)
        return output
    }

    static func decodeProof(_ frame: Frame, in buffer: [UInt8]) throws(LinkError) -> [UInt8] {
        var body = BodyReader(buffer.span.extracting(frame.body), base: frame.body.lowerBound)
        let proof = try body.array(proofCount)
        try body.end()
        return proof
    }
}
