// A Web Push message, encrypted so that only the browser can read it and not the push service that carries it: RFC 8291,
// in the content coding of RFC 8188 (`aes128gcm`) with one record.
//
//     salt (16) | record size (4) | key length (1) = 65 | our public key (65) | AES-128-GCM(text | 0x02) with its tag (16)
//
// Each message has a key pair of its own (ECDH with the browser's key) and a salt of its own, so no nonce is used twice.
public import System

public enum WebPushMessage {
    /// A push service need not take more than 4096 bytes; this is what remains of them for the text.
    public static let textBytesMax = 4096 - headerBytes - 1 - Crypto.gcmTagBytes
    private static let headerBytes = 16 + 4 + 1 + 65
    private static let recordSize: [UInt8] = [0, 0, 0x10, 0]

    /// - Parameters:
    ///   - receiver: the browser's public key, `p256dh`.
    ///   - secret: the browser's `auth`.
    public static func encrypt(_ text: [UInt8], receiver: [UInt8], secret: [UInt8]) throws(SystemError) -> [UInt8] {
        try encrypt(
            text, receiver: receiver, secret: secret, key: .generate(.es256), salt: Crypto.randomBytes(16))
    }

    /// The same with a given key and salt, for the example of the standard. Use neither twice.
    public static func encrypt(
        _ text: [UInt8], receiver: [UInt8], secret: [UInt8], key: PrivateKey, salt: [UInt8]
    ) throws(SystemError) -> [UInt8] {
        guard text.count <= textBytesMax, let ours = try key.publicKey.p256Point else {
            throw SystemError(.invalidArgument, "encrypt", message: "\(text.count) bytes, more than \(textBytesMax)")
        }
        let shared = try key.agree(with: PublicKey(p256Point: receiver))
        let input = Crypto.hkdfSHA256(
            secret: shared, salt: secret, info: Array("WebPush: info\0".utf8) + receiver + ours, count: 32)
        let contentKey = Crypto.hkdfSHA256(
            secret: input, salt: salt, info: Array("Content-Encoding: aes128gcm\0".utf8), count: 16)
        let nonce = Crypto.hkdfSHA256(
            secret: input, salt: salt, info: Array("Content-Encoding: nonce\0".utf8), count: 12)
        // 0x02 ends the text of the last record.
        let sealed = try Crypto.sealAES128GCM(text + [2], key: contentKey, nonce: nonce)
        return salt + recordSize + [UInt8(ours.count)] + ours + sealed
    }
}
