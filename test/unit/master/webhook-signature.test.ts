import { describe, expect, it } from "vitest";
import { webhookSignature } from "../../../src/master/webhook-signature.js";

describe("a webhook's signature", () => {
  it("is the one of the example that the libraries of Standard Webhooks are tested with", () => {
    const signature = webhookSignature(
      "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
      "msg_p5jXN8AQM9LWM0D4loKWxJek",
      1_614_265_330,
      '{"test": 2432232314}',
    );

    expect(signature).toBe("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
  });

  it("is made with any other secret as it is", () => {
    const signature = webhookSignature("a secret of mine", "id", 1, "ü");

    // By: printf 'id.1.ü' | openssl dgst -sha256 -hmac 'a secret of mine' -binary | base64
    expect(signature).toBe("v1,V5y8G/XgyCg7d45mZsyTERTRABNL6wK0TwQ4clgl8pM=");
  });
});
